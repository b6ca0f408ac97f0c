"""What the first bytes of an image file say of its size, found in microseconds.

It is only what the file claims: whoever relies on it compares it with what was read in full.
"""

import struct

# Cameras write about ten segments before the size.
_MAX_SEGMENTS = 50
_SIZES = frozenset((*range(0xC0, 0xD0),)) - {0xC4, 0xC8, 0xCC}


def claimed_size(data: bytes) -> tuple[int, int] | None:
    """Return the width and the height that a JPEG or PNG file claims; None if it does not tell easily."""
    if data.startswith(b"\xff\xd8"):
        return _jpeg_size(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR" and len(data) >= 24:
        width, height = struct.unpack_from(">II", data, 16)
        return width, height
    return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    position, end = 2, len(data) - 9
    for _ in range(_MAX_SEGMENTS):
        if position > end or data[position] != 0xFF:
            return None
        if data[position + 1] in _SIZES:
            height, width = struct.unpack_from(">HH", data, position + 5)
            return width, height
        position += 2 + int.from_bytes(data[position + 2 : position + 4])
    return None

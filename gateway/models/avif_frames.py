"""The size of the frames inside an AVIF file, whatever size the file declares.

The decoder takes memory for the frames at their size in the AV1 data, and only then scales them to the size
that the file declares. Neither the decoder nor Pillow has a limit that could be set to ours. The layout of
the file is in ISO/IEC 14496-12 and 23008-12, the layout of the AV1 data in sections 5.3 to 5.5 of the AV1
specification.
"""

import itertools
import struct
from collections.abc import Iterator

# Boxes, items and extents in a file, and units in an image. Far above what any encoder writes.
MAX_PARTS = 5_000

_SEQUENCE_HEADER = 1


class TooManyPartsError(ValueError):
    """The file has more than MAX_PARTS parts of a kind."""


def coded_pixels(data: bytes) -> int:
    """Return the pixels of all AV1 frames that are decoded together: colours, alpha, every tile of a grid.

    The first frames of an image sequence count. Raises TooManyPartsError, and ValueError, LookupError or
    struct.error if the file is damaged.
    """
    view = memoryview(data)
    images: list[bytes | memoryview] = []
    for kind, box in _boxes(view):
        if kind == b"meta":
            images += _items(view, box[4:])
        elif kind == b"moov":
            images += _first_samples(view, box)
    sizes = [max(_frame_sizes(image), default=0) for image in images]
    if not any(sizes):
        raise ValueError("no AV1 data")
    return sum(sizes)


def _boxes(view: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the kind and the content of boxes that lie one after another."""
    position = 0
    for number in itertools.count():
        if position + 8 > len(view):
            return
        if number == MAX_PARTS:
            raise TooManyPartsError
        size, kind = struct.unpack_from(">I4s", view, position)
        header_size = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", view, position + 8)
            header_size = 16
        end = position + size if size else len(view)
        if end < position + header_size:
            raise ValueError("a box is smaller than its header")
        yield kind, view[position + header_size : end]
        position = end


def _items(file: memoryview, meta: memoryview) -> list[bytes | memoryview]:
    """Return the data of the file's AV1 images."""
    parts = dict(_boxes(meta))
    kinds = dict(_item_kinds(parts[b"iinf"]))
    # An item's data lies in the file or in the box idat. The decoder does not know the third way.
    sources = {0: file, 1: parts.get(b"idat", memoryview(b""))}
    images: list[bytes | memoryview] = []
    joined = 0
    for number, construction, extents in _locations(parts[b"iloc"]):
        if kinds.get(number) != b"av01":
            continue
        # An extent without a length goes to the end.
        pieces = [
            sources[construction][start : start + length if length else None] for start, length in extents
        ]
        if len(pieces) > 1:
            joined += sum(map(len, pieces))
            if joined > len(file):
                raise TooManyPartsError
        images.append(pieces[0] if len(pieces) == 1 else b"".join(pieces))
    return images


def _item_kinds(iinf: memoryview) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the kind of each item."""
    for kind, infe in _boxes(iinf[6 if iinf[0] == 0 else 8 :]):
        if kind == b"infe":
            number, _, item_kind = struct.unpack_from(">HH4s" if infe[0] == 2 else ">IH4s", infe, 4)
            yield number, item_kind


def _locations(iloc: memoryview) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    """Yield the number of each item, its construction method, and the start and length of its extents."""
    version, read = iloc[0], _Bits(iloc[4:]).read
    offset_bits, length_bits, base_bits, index_bits = (8 * read(4) for _ in range(4))
    number_bits = 32 if version == 2 else 16
    parts = 0
    for _ in range(read(number_bits)):
        number = read(number_bits)
        construction = read(16) & 15 if version else 0
        read(16)  # which file: always this one
        base = read(base_bits)
        extents = []
        for _ in range(read(16)):
            read(index_bits if version else 0)
            extents.append((base + read(offset_bits), read(length_bits)))
        parts += 1 + len(extents)
        if parts > MAX_PARTS:
            raise TooManyPartsError
        yield number, construction, extents


def _first_samples(file: memoryview, moov: memoryview) -> Iterator[memoryview]:
    """Yield the data of the first frame of each AV1 track."""
    for kind, track in _boxes(moov):
        if kind != b"trak":
            continue
        box = track
        for name in (b"mdia", b"minf", b"stbl"):
            box = dict(_boxes(box)).get(name, memoryview(b""))
        table = dict(_boxes(box))
        if b"av01" not in bytes(table.get(b"stsd", b"")[:1000]):
            continue
        # One size for all samples, or else a list of sizes.
        (size,) = struct.unpack_from(">I", table[b"stsz"], 4)
        if not size:
            (size,) = struct.unpack_from(">I", table[b"stsz"], 12)
        (start,) = (
            struct.unpack_from(">I", table[b"stco"], 8)
            if b"stco" in table
            else struct.unpack_from(">Q", table[b"co64"], 8)
        )
        yield file[start : start + size]


def _frame_sizes(image: bytes | memoryview) -> Iterator[int]:
    """Yield the largest frame size, in pixels, of each sequence header among AV1's units (OBUs)."""
    view = memoryview(image)
    position = 0
    for number in itertools.count():
        if position >= len(view):
            return
        if number == MAX_PARTS:
            raise TooManyPartsError
        header = view[position]
        position += 2 if header & 4 else 1
        size = len(view) - position
        if header & 2:
            size = shift = 0
            for _ in range(8):
                byte = view[position]
                position += 1
                size |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
        if header >> 3 & 15 == _SEQUENCE_HEADER:
            yield _largest_frame(view[position : position + size])
        position += size


def _largest_frame(header: memoryview) -> int:
    bits = _Bits(header)
    read = bits.read
    read(4)  # profile, still picture
    if read(1):  # the short form of a still picture's header
        read(5)
    else:
        delay_bits = 0
        if read(1):  # timing
            read(64)
            if read(1):
                bits.skip_number()
            if read(1):  # decoder model
                delay_bits = read(5) + 1
                read(42)
        has_display_delay = read(1)
        for _ in range(read(5) + 1):
            read(12)
            if read(5) > 7:  # levels that have a tier
                read(1)
            if delay_bits and read(1):
                read(2 * delay_bits + 1)
            if has_display_delay and read(1):
                read(4)
    width_bits, height_bits = read(4) + 1, read(4) + 1
    return (read(width_bits) + 1) * (read(height_bits) + 1)


class _Bits:
    """A reader of bits, the highest of each byte first."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._position = 0

    def read(self, count: int) -> int:
        """Return the next bits as a number; raise IndexError at the end."""
        start, self._position = self._position, self._position + count
        last = -(-self._position // 8)
        if last > len(self._view):
            raise IndexError("the data ends too early")
        number = int.from_bytes(self._view[start // 8 : last])
        return number >> (last * 8 - self._position) & (1 << count) - 1

    def skip_number(self) -> None:
        """Skip a number of variable length: as many bits follow its first 1 as zeros come before it."""
        zeros = 0
        while not self.read(1):
            zeros += 1
        self.read(zeros)

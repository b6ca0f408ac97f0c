"""Photos to send. Copies of a file that differ: a server must not know one that it has seen."""

import io
from collections.abc import Sequence

from PIL import Image

START, _COMMENT = b"\xff\xd8", b"\xff\xfe"


def jpeg(picture: Image.Image, size: tuple[int, int], quality: int = 90) -> bytes:
    """Return a JPEG of this size (width, height)."""
    file = io.BytesIO()
    picture.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=quality)
    return file.getvalue()


def numbered(content: bytes, number: int) -> bytes:
    """Return the JPEG with a comment that says its number. Its pixels stay as they are."""
    text = f"{number:08d}".encode()
    return START + _COMMENT + (len(text) + 2).to_bytes(2, "big") + text + content.removeprefix(START)


def groups(contents: Sequence[bytes], of: int, count: int) -> list[list[bytes]]:
    """Return `count` lists of so many files each, no two equal: numbered copies of these in turns."""
    return [
        [numbered(contents[index % len(contents)], index) for index in range(start, start + of)]
        for start in range(0, of * count, of)
    ]

"""Images as an assistant names them: files below one folder, image data, or addresses for the server."""

import asyncio
import io
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from visiongate import draw
from visiongate.operations import image_file
from visiongate.operations.arguments import shown
from visiongate.operations.image import MAX_FILE_BYTES, URI_START
from visiongate.operations.image_file import MEBIBYTE

MAX_PICTURE_SIDE = 1024
"""The longer side of pictures for an assistant, in pixels. Models see no more, and each pixel costs."""

# A text without data: in front is base64 if it has at least this length. No name of a file is as long.
MIN_BASE64_LENGTH = 256
_BASE64 = re.compile(r"[A-Za-z0-9+/_=\s-]+")
_DATA_URI = re.compile(r"data:", re.IGNORECASE)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)

# O_NONBLOCK, because opening a pipe would wait for its writer. Windows has neither this nor O_NOFOLLOW.
_OPEN_FLAGS = os.O_RDONLY
for _name in ("O_NONBLOCK", "O_NOFOLLOW", "O_BINARY"):
    _OPEN_FLAGS |= getattr(os, _name, 0)


@dataclass(frozen=True, slots=True)
class Photo:
    """An image that an assistant named: the bytes of a file, or an address that only the server fetches."""

    content: bytes | str

    def drawn(self, items: Sequence[draw.Item]) -> bytes:
        """Return a JPEG of the image with the items. Raise ValueError if it cannot be drawn on here."""
        if isinstance(self.content, str):
            raise ValueError("only the server has fetched the image")
        try:
            with Image.open(io.BytesIO(self.content)) as image:
                picture = draw.draw(image, items, max_side=MAX_PICTURE_SIDE)
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            # The server reads formats that Pillow does not, such as HEIC.
            raise ValueError("the image is in a format that is not read here") from error
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=85)
        return file.getvalue()


class Images:
    """What an assistant may name as an image. Files are read below `root` alone; None: no files are read."""

    def __init__(self, root: Path | None = None, *, allow_uris: bool = False) -> None:
        self._root = None if root is None else Path(os.path.realpath(root.expanduser()))
        if self._root is not None and not self._root.is_dir():
            raise ValueError(f"--root {root} is not a folder")
        self._allow_uris = allow_uris

    @property
    def description(self) -> str:
        """Say what an image argument may be."""
        ways = ["image data as a data URI (data:image/png;base64,...) or as base64 alone"]
        if self._root is not None:
            ways.insert(0, f"the path of a file below {self._root}, absolute or relative to that folder")
        if self._allow_uris:
            ways.append(f"an {URI_START} address that the server may fetch from")
        return f"An image is {', or '.join(ways)}."

    async def read(self, text: str, name: str = "image") -> Photo:
        """Return the image that a text names. Raise ValueError, which calls the argument `name`."""
        return Photo(await asyncio.to_thread(self._read, text, name))

    def _read(self, text: str, name: str) -> bytes | str:
        if _DATA_URI.match(text):
            return image_file.read(text, name)
        if _ADDRESS.match(text):
            return self._address(text, name)
        if len(text) >= MIN_BASE64_LENGTH and _BASE64.fullmatch(text):
            return _read_base64(text, name)
        return self._read_file(text, name)

    def _address(self, text: str, name: str) -> str:
        if not self._allow_uris:
            raise ValueError(f"{name} is the address {shown(text)}, and none is taken. {self.description}")
        # The client reads other addresses, such as file://, itself.
        if not text.lower().startswith(URI_START):
            raise ValueError(f"{name} is {shown(text)}: an address starts with {URI_START}")
        return text

    def _read_file(self, text: str, name: str) -> bytes:
        if self._root is None:
            raise ValueError(
                f"{name} is {shown(text)}, which is no image data, and no files are read here. "
                f"{self.description}"
            )
        try:
            # All symbolic links are followed before the comparison.
            path = os.path.realpath(self._root / text)
            if not Path(path).is_relative_to(self._root):
                raise ValueError(f"it is not below {self._root}, the only folder that is read")
            return _read_regular(path)
        except FileNotFoundError:
            raise ValueError(f"{name}: there is no file {shown(text)} below {self._root}") from None
        except OSError as error:
            reason = str(error.strerror).lower()
            raise ValueError(f"{name}: {shown(text)} cannot be read: {reason}") from error
        except ValueError as error:  # also a path with a zero byte
            raise ValueError(f"{name}: {shown(text)} cannot be read: {error}") from error


def _read_regular(path: str) -> bytes:
    """Read a file that is neither a folder nor a device nor a pipe, and not too large.

    The text of ValueError goes on after "cannot be read:".
    """
    descriptor = os.open(path, _OPEN_FLAGS)
    try:
        # Of the open file: a name could stand for another one by now.
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise ValueError("it is a folder; name the images in it one by one")
        if not stat.S_ISREG(mode):
            raise ValueError("it is not a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(MAX_FILE_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"it has more than {MAX_FILE_BYTES // MEBIBYTE} MiB; a smaller copy is needed")
    if not data:
        raise ValueError("it is empty")
    return data


def _read_base64(text: str, name: str) -> bytes:
    """Decode base64, standard or URL-safe, padded or not, with or without line ends."""
    digits = "".join(text.split()).rstrip("=").translate(str.maketrans("-_", "+/"))
    return image_file.read(f"data:;base64,{digits}{'=' * (-len(digits) % 4)}", name)

"""What an image file may ask for, looked at before its pixels are decoded.

A file of some kilobytes can otherwise take minutes or gigabytes: by its size, or by the number of its parts.
"""

import io
import re
import struct

from PIL import Image, TiffImagePlugin

from gateway.models import avif_frames

# Cameras and editors write far less of what follows.
# Pillow reads chunks, segments, blocks and strips one by one, in Python.
MAX_READS = 200_000
# Bytes of a TIFF's list of strips or tiles.
MAX_OFFSETS = 400_000
# Each scan goes over the whole JPEG, however little it has to say. Encoders write about ten.
MAX_SCANS = 50
# The pixels of an AVIF's frames, as a multiple of the image's: colours, alpha, a gain map, a thumbnail. Small
# images may lie in larger frames.
MAX_FRAMES, SMALL_FRAME = 4, 512 * 512

_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)


class ImageError(ValueError):
    """The bytes are not an image this server takes; the message is one sentence for the caller."""


class File(io.BytesIO):
    """A file that may be read in so many pieces."""

    _reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > MAX_READS:
            raise _too_many_parts()
        return super().read(size)


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse an image without pixels, or with too many."""
    if width < 1 or height < 1:
        raise ImageError(f"The image is {width}x{height} pixels; both sides must be at least 1.")
    if width * height > max_pixels:
        raise ImageError(
            f"The image is {width}x{height} = {width * height} pixels; the limit is {max_pixels} pixels."
        )


def check_offsets(data: bytes) -> None:
    """Refuse a TIFF of more strips or tiles than are ever needed: Pillow lists them all when it opens it."""
    if data[:2] not in (b"II", b"MM"):
        return
    is_big = data[2:3] == b"+"
    directory = TiffImagePlugin.ImageFileDirectory_v1(data[: 16 if is_big else 8])
    file = File(data)
    file.seek(directory.next)
    directory.load(file)
    tags = (TiffImagePlugin.STRIPOFFSETS, TiffImagePlugin.TILEOFFSETS)
    if any(len(directory.tagdata.get(tag, b"")) > MAX_OFFSETS for tag in tags):
        raise _too_many_parts()


def check_parts(data: bytes, image: Image.Image, max_pixels: int) -> int:
    """Refuse an opened image whose scans, tiles or frames are too many or too large.

    Returns the pixels for which memory is taken while it is decoded.
    """
    parts = 0
    match image.format:
        case "JPEG" | "MPO":
            _check_scans(data)
        case "TIFF":
            parts = _tile_pixels(image, max_pixels)
        case "AVIF":
            parts = _frame_pixels(data, image)
    return max(image.width * image.height, parts)


def _tile_pixels(image: Image.Image, max_pixels: int) -> int:
    """The pixels of a TIFF's tile, else 0: memory is taken for a whole one."""
    assert isinstance(image, TiffImagePlugin.TiffImageFile)
    width, height = (
        image.tag_v2.get(tag, 1) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH)
    )
    if width * height > max_pixels:
        raise ImageError(f"The image's tiles are {width}x{height} pixels; the limit is {max_pixels} pixels.")
    return int(width * height)


def _frame_pixels(data: bytes, image: Image.Image) -> int:
    """The pixels of an AVIF's frames together. They are scaled to the image's size once they are decoded."""
    try:
        pixels = avif_frames.coded_pixels(data)
    except avif_frames.TooManyPartsError as error:
        raise _too_many_parts() from error
    except (ValueError, LookupError, struct.error) as error:
        raise ImageError("The AVIF image is damaged or truncated.") from error
    if pixels > MAX_FRAMES * max(image.width * image.height, SMALL_FRAME):
        raise ImageError(
            f"The AVIF image is {image.width}x{image.height} pixels, but its frames have {pixels}."
        )
    return pixels


def _check_scans(data: bytes) -> None:
    if data.count(b"\xff\xda") <= MAX_SCANS:
        return
    # Exactly, now: thumbnails in the header, and videos behind the image, have such bytes too.
    scans = place = 0
    for _ in range(MAX_READS):
        marker = _JPEG_MARKER.search(data, place)
        if marker is None or marker[1] == b"\xd9":
            return
        place = marker.end()
        if marker[1] not in (b"\xd8", b"\x01"):  # all others have a length
            place += int.from_bytes(data[place : place + 2])
        scans += marker[1] == b"\xda"
        if scans > MAX_SCANS:
            break
    raise _too_many_parts()


def _too_many_parts() -> ImageError:
    return ImageError("The image has too many parts; the limit is far above what any encoder writes.")

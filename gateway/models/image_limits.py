"""Limits on image files, checked before the pixels are decoded.

Without them, a file of some kilobytes can take minutes or gigabytes, by its declared size or by the number of
its parts.
"""

import io
import re
import struct

from PIL import Image, TiffImagePlugin

from gateway.models import avif_frames

# Cameras and editors stay far below all of these limits.
# Reads of a file. Pillow reads chunks, segments, blocks and strips one by one, in Python.
MAX_READS = 200_000
# Bytes of a TIFF's list of strips or tiles.
MAX_OFFSET_BYTES = 400_000
# Scans of a JPEG. Each scan goes over the whole image, however little data it has. Encoders write about ten.
MAX_SCANS = 50
# The pixels of all frames of an AVIF, as a multiple of the image's: colours, alpha, a gain map, a thumbnail.
MAX_FRAME_RATIO = 4
# In this ratio an image counts as at least so many pixels, because a small image may lie in larger frames.
MIN_FRAME_PIXELS = 512 * 512

_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)


class ImageError(ValueError):
    """The bytes are not an image that this server accepts; the message is one sentence for the caller."""


class File(io.BytesIO):
    """A file in memory that can be read at most MAX_READS times."""

    _read_count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._read_count += 1
        if self._read_count > MAX_READS:
            raise _too_many_parts()
        return super().read(size)


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse an image without pixels, or with more than `max_pixels`."""
    if width < 1 or height < 1:
        raise ImageError(f"The image is {width}x{height} pixels; both sides must be at least 1.")
    if width * height > max_pixels:
        raise ImageError(
            f"The image is {width}x{height} = {width * height} pixels; the limit is {max_pixels} pixels."
        )


def check_offsets(data: bytes) -> None:
    """Refuse a TIFF with too many strips or tiles: Pillow lists them all when it opens the file."""
    if data[:2] not in (b"II", b"MM"):
        return
    is_big = data[2:3] == b"+"
    directory = TiffImagePlugin.ImageFileDirectory_v1(data[: 16 if is_big else 8])
    file = File(data)
    file.seek(directory.next)
    directory.load(file)
    tags = (TiffImagePlugin.STRIPOFFSETS, TiffImagePlugin.TILEOFFSETS)
    if any(len(directory.tagdata.get(tag, b"")) > MAX_OFFSET_BYTES for tag in tags):
        raise _too_many_parts()


def check_parts(data: bytes, image: Image.Image, max_pixels: int) -> int:
    """Refuse an opened image if its scans, tiles or frames are too many or too large.

    Returns the number of pixels for which decoding takes memory.
    """
    part_pixels = 0
    match image.format:
        case "JPEG" | "MPO":
            _check_scans(data)
        case "TIFF":
            part_pixels = _tile_pixels(image, max_pixels)
        case "AVIF":
            part_pixels = _frame_pixels(data, image)
    return max(image.width * image.height, part_pixels)


def _tile_pixels(image: Image.Image, max_pixels: int) -> int:
    """Return the pixels of a TIFF's tile, or 1 without tiles: decoding takes memory for a whole tile."""
    assert isinstance(image, TiffImagePlugin.TiffImageFile)
    width, height = (
        image.tag_v2.get(tag, 1) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH)
    )
    if width * height > max_pixels:
        raise ImageError(f"The image's tiles are {width}x{height} pixels; the limit is {max_pixels} pixels.")
    return int(width * height)


def _frame_pixels(data: bytes, image: Image.Image) -> int:
    """Return the pixels of all frames of an AVIF, which are scaled to the image's size after decoding."""
    try:
        pixels = avif_frames.coded_pixels(data)
    except avif_frames.TooManyPartsError as error:
        raise _too_many_parts() from error
    except (ValueError, LookupError, struct.error) as error:
        raise ImageError("The AVIF image is damaged or truncated.") from error
    if pixels > MAX_FRAME_RATIO * max(image.width * image.height, MIN_FRAME_PIXELS):
        raise ImageError(
            f"The AVIF image is {image.width}x{image.height} pixels, but its frames have {pixels}."
        )
    return pixels


def _check_scans(data: bytes) -> None:
    if data.count(b"\xff\xda") <= MAX_SCANS:
        return
    # Now count exactly: thumbnails in the header, and videos behind the image, contain such bytes too.
    scans = position = 0
    for _ in range(MAX_READS):
        marker = _JPEG_MARKER.search(data, position)
        if marker is None or marker[1] == b"\xd9":
            return
        position = marker.end()
        if marker[1] not in (b"\xd8", b"\x01"):  # all others have a length
            position += int.from_bytes(data[position : position + 2])
        scans += marker[1] == b"\xda"
        if scans > MAX_SCANS:
            break
    raise _too_many_parts()


def _too_many_parts() -> ImageError:
    return ImageError("The image has too many parts; the limit is far above what any encoder writes.")

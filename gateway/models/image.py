"""Images at the door: encoded or raw bytes in, RGB uint8 out; and the resize all models share."""

import io
import re
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Of what follows, cameras and editors write far less; without a limit, a file of some kilobytes takes minutes
# to decode. Pillow reads chunks, segments, blocks and strips one by one, in Python:
MOST_READS = 200_000
# of a TIFF's list of strips or tiles, bytes:
MOST_OFFSETS = 400_000
# each of which goes over the whole JPEG, however little it has to say (encoders write about ten):
MOST_SCANS = 50

# The most that decoding takes, measured: 7 for most JPEG and PNG files, 10 for progressive JPEGs that are to
# be turned, 16 for WebP, 17 for TIFFs of floats.
BYTES_A_PIXEL = 17

# Converted at once: what fits a core's cache.
PIXELS_AT_ONCE = 64_000

_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)

# Pillow warns of odd metadata, which is the caller's affair and no reason to refuse the pixels. Once and for
# all: `catch_warnings` swaps state of the whole process, so that threads would have to take turns.
warnings.filterwarnings("ignore", module=r"PIL\.")


class ImageError(ValueError):
    """The bytes are not an image this server takes; the message is one sentence for the caller."""


def decode(
    data: bytes, *, max_pixels: int, room: Callable[[int], AbstractContextManager[object]] = nullcontext
) -> NDArray[np.uint8]:
    """Decode a JPEG, PNG, WebP, BMP, TIFF or GIF (first frame or page) to upright RGB.

    Returns uint8 [H,W,3], contiguous and read-only. 8-bit images are equal to Pillow's
    `ImageOps.exif_transpose(Image.open(...)).convert("RGB")`: alpha is dropped (not blended over a
    background), CMYK is converted without a colour profile, the EXIF orientation is applied.
    Where Pillow's conversion would clip to white or black, values are scaled: 16-bit grey keeps its high
    byte (as Pillow does for 16-bit colour), 32-bit integers keep the 8 bits below 8, 16 or 32 bits,
    whichever first holds the largest value, and float pixels all within 0..1 are multiplied by 255.

    `room` is called with the bytes of memory that decoding may take, once the header has told; what it
    returns is entered meanwhile.

    Raises ImageError for no data, an unknown format, damaged or truncated data, and images of more than
    `max_pixels` pixels (or Pillow's own ceiling, 178,956,970), which are refused from the header alone, as
    are tiles of more, and files of more parts or scans than anyone means.
    """
    if not data:
        raise ImageError("The image is empty: it has no bytes.")
    try:
        _check_offsets(data)
        image: Image.Image = Image.open(_File(data), formats=FORMATS)
        _check_scans(data, image)
        largest_part = _check_tiles(image, max_pixels)
    except UnidentifiedImageError as error:
        raise ImageError(f"The data is not an image in a supported format ({', '.join(FORMATS)}).") from error
    except Image.DecompressionBombError as error:
        ceiling = min(max_pixels, 2 * (Image.MAX_IMAGE_PIXELS or max_pixels))
        raise ImageError(f"The image has too many pixels; the limit is {ceiling}.") from error
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # Pillow's plugins raise many kinds on bad headers
        raise ImageError("The image header is damaged, or its metadata is too large.") from error
    _check_size(image.width, image.height, max_pixels)
    kind = image.format
    try:
        with room(BYTES_A_PIXEL * max(image.width * image.height, largest_part)):
            # Not `Image.draft`: it decodes a JPEG at reduced size, which no reference does.
            image.load()
            # A GIF frame may be larger than the screen its header declares.
            _check_size(image.width, image.height, max_pixels)
            upright = _orientation(image)
            if upright is not None:
                image = image.transpose(upright)
            return _to_rgb(image)
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        raise ImageError(f"The {kind} image is damaged, truncated or of an unsupported kind.") from error


def from_raw(data: bytes, width: int, height: int, *, max_pixels: int) -> NDArray[np.uint8]:
    """View raw RGB8 bytes (row by row from the top, no padding) as uint8 [height,width,3], read-only.

    Raises ImageError where the size is not positive, over `max_pixels`, or not that of the data.
    """
    _check_size(width, height, max_pixels)
    expected = width * height * 3
    if len(data) != expected:
        raise ImageError(
            f"A raw RGB8 image of {width}x{height} pixels has {expected} bytes, but {len(data)} were sent."
        )
    return np.frombuffer(data, dtype=np.uint8).reshape(height, width, 3)


def resize(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize uint8 [H,W,3] to `size` (height, width) with Pillow's bilinear filter.

    The filter widens when shrinking (antialiasing), as transformers' `...ImageProcessorPil` classes have it;
    OpenCV's and torch's plain bilinear do not.
    """
    if image.shape[:2] == size:
        return image
    height, width = size
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def place(image: NDArray[np.uint8], canvas: tuple[int, int]) -> NDArray[np.uint8]:
    """Put uint8 [h,w,3] at the top-left of a zeroed uint8 canvas of size (height, width)."""
    height, width = image.shape[:2]
    placed = np.zeros((*canvas, 3), dtype=np.uint8)
    placed[:height, :width] = image
    return placed


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"The image is {width}x{height} pixels; both sides must be at least 1.")
    if width * height > max_pixels:
        raise ImageError(
            f"The image is {width}x{height} = {width * height} pixels; the limit is {max_pixels} pixels."
        )


class _File(io.BytesIO):
    """A file that may be read in so many pieces."""

    _reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > MOST_READS:
            raise _too_many_parts()
        return super().read(size)


def _too_many_parts() -> ImageError:
    return ImageError("The image has too many parts; the limit is far above what any encoder writes.")


def _check_offsets(data: bytes) -> None:
    """Refuses a TIFF of more strips or tiles than are ever needed: Pillow lists them all when it opens it."""
    if data[:2] not in (b"II", b"MM"):
        return
    is_big = data[2:3] == b"+"
    directory = TiffImagePlugin.ImageFileDirectory_v1(data[: 16 if is_big else 8])
    file = _File(data)
    file.seek(directory.next)
    directory.load(file)
    tags = (TiffImagePlugin.STRIPOFFSETS, TiffImagePlugin.TILEOFFSETS)
    if any(len(directory.tagdata.get(tag, b"")) > MOST_OFFSETS for tag in tags):
        raise _too_many_parts()


def _check_tiles(image: Image.Image, max_pixels: int) -> int:
    """The pixels of a TIFF's tile, else 0: memory is taken for a whole one. Refuses those over the limit."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 0
    width, height = (
        image.tag_v2.get(tag, 1) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH)
    )
    if width * height > max_pixels:
        raise ImageError(f"The image's tiles are {width}x{height} pixels; the limit is {max_pixels} pixels.")
    return int(width * height)


def _check_scans(data: bytes, image: Image.Image) -> None:
    if image.format not in ("JPEG", "MPO") or data.count(b"\xff\xda") <= MOST_SCANS:
        return
    # Exactly, now: thumbnails in the header, and videos behind the image, have such bytes too.
    scans = place = 0
    for _ in range(MOST_READS):
        marker = _JPEG_MARKER.search(data, place)
        if marker is None or marker[1] == b"\xd9":
            return
        place = marker.end()
        if marker[1] not in (b"\xd8", b"\x01"):  # all others have a length
            place += int.from_bytes(data[place : place + 2])
        scans += marker[1] == b"\xda"
        if scans > MOST_SCANS:
            break
    raise _too_many_parts()


def _orientation(image: Image.Image) -> Image.Transpose | None:
    try:
        return _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata on good pixels
        return None


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    image.info.pop("transparency", None)  # Pillow warns about it when a palette is converted, and drops it
    if image.mode.startswith("I"):
        image = Image.fromarray(_high_bits(np.asarray(image)))
    elif image.mode == "F":
        image = Image.fromarray(_from_float(np.asarray(image)))
    rgb = np.empty((image.height, image.width, 3), np.uint8)
    # Some rows at a time: of a whole image, Pillow's copies on the way take four times its memory.
    rows = max(1, PIXELS_AT_ONCE // image.width)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        rgb[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)).convert("RGB"))
    rgb.flags.writeable = False
    return rgb


def _high_bits(grey: NDArray[np.generic]) -> NDArray[np.uint8]:
    if grey.dtype.itemsize == 2:
        return (grey.astype(np.uint16) >> 8).astype(np.uint8)
    # In place from here on: these are the largest of images, four bytes a pixel.
    positive = np.maximum(grey.astype(np.int32, copy=False), 0)
    peak = int(positive.max())
    positive >>= next(shift for shift in (0, 8, 24) if peak >> shift < 256)
    return positive.astype(np.uint8)


def _from_float(grey: NDArray[np.generic]) -> NDArray[np.uint8]:
    values = np.array(grey, np.float32)
    np.nan_to_num(values, copy=False, nan=0.0, posinf=255.0, neginf=0.0)
    if values.min() >= 0 and values.max() <= 1:
        np.rint(np.multiply(values, 255, out=values), out=values)
    return np.clip(values, 0, 255, out=values).astype(np.uint8)

"""Images at the door: encoded or raw bytes in, RGB uint8 out; and the resize all models share."""

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

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

_warning_filters = threading.Lock()


class ImageError(ValueError):
    """The bytes are not an image this server takes; the message is one sentence for the caller."""


def decode(data: bytes, *, max_pixels: int) -> NDArray[np.uint8]:
    """Decode a JPEG, PNG, WebP, BMP, TIFF or GIF (first frame or page) to upright RGB.

    Returns uint8 [H,W,3], contiguous and read-only. 8-bit images are equal to Pillow's
    `ImageOps.exif_transpose(Image.open(...)).convert("RGB")`: alpha is dropped (not blended over a
    background), CMYK is converted without a colour profile, the EXIF orientation is applied.
    Where Pillow's conversion would clip to white or black, values are scaled: 16-bit grey keeps its high
    byte (as Pillow does for 16-bit colour), 32-bit integers keep the 8 bits below 8, 16 or 32 bits,
    whichever first holds the largest value, and float pixels all within 0..1 are multiplied by 255.

    Raises ImageError for no data, an unknown format, damaged or truncated data, and images of more than
    `max_pixels` pixels (or Pillow's own ceiling, 178,956,970), which are refused from the header alone.
    """
    if not data:
        raise ImageError("The image is empty: it has no bytes.")
    try:
        with _no_pillow_warnings():
            image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ImageError(f"The data is not an image in a supported format ({', '.join(FORMATS)}).") from error
    except Image.DecompressionBombError as error:
        ceiling = min(max_pixels, 2 * (Image.MAX_IMAGE_PIXELS or max_pixels))
        raise ImageError(f"The image has too many pixels; the limit is {ceiling}.") from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plugins raise many kinds on bad headers
        raise ImageError("The image header is damaged.") from error
    _check_size(image.width, image.height, max_pixels)
    try:
        _load(image)
        # A GIF frame may be larger than the screen its header declares.
        _check_size(image.width, image.height, max_pixels)
        rgb = _to_rgb(image)
        upright = _orientation(image)
        return np.asarray(rgb if upright is None else rgb.transpose(upright))
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        raise ImageError(
            f"The {image.format} image is damaged, truncated or of an unsupported kind."
        ) from error


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


@contextmanager
def _no_pillow_warnings() -> Iterator[None]:
    # Pillow warns of odd metadata, which is the caller's affair and no reason to refuse the pixels.
    # `catch_warnings` swaps process-wide state, so threads take turns; only short header work is done inside.
    with _warning_filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _load(image: Image.Image) -> None:
    # Not `Image.draft`: it decodes a JPEG at reduced size, which no reference does.
    if image.format == "TIFF":  # reads its metadata, and applies the orientation, while loading
        with _no_pillow_warnings():
            image.load()
    else:
        image.load()


def _orientation(image: Image.Image) -> Image.Transpose | None:
    try:
        with _no_pillow_warnings():
            return _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata on good pixels
        return None


def _to_rgb(image: Image.Image) -> Image.Image:
    image.info.pop("transparency", None)  # Pillow warns about it when a palette is converted, and drops it
    if image.mode.startswith("I"):
        return _rgb_from_grey(_high_bits(np.asarray(image)))
    if image.mode == "F":
        return _rgb_from_grey(_from_float(np.asarray(image)))
    return image.convert("RGB")


def _rgb_from_grey(grey: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(grey).convert("RGB")


def _high_bits(grey: NDArray[np.generic]) -> NDArray[np.uint8]:
    if grey.dtype.itemsize == 2:
        return (grey.astype(np.uint16) >> 8).astype(np.uint8)
    positive = np.maximum(grey.astype(np.int32), 0)
    peak = int(positive.max())
    shift = next(shift for shift in (0, 8, 24) if peak >> shift < 256)
    return (positive >> shift).astype(np.uint8)


def _from_float(grey: NDArray[np.generic]) -> NDArray[np.uint8]:
    values = np.nan_to_num(grey.astype(np.float32), nan=0.0, posinf=255.0, neginf=0.0)
    if values.min() >= 0 and values.max() <= 1:
        values = np.rint(values * 255)
    return np.clip(values, 0, 255).astype(np.uint8)

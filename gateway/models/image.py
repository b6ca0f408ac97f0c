"""Encoded or raw bytes of images to RGB uint8."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from gateway.models import image_limits
from gateway.models.image_formats import FORMATS, looks_like
from gateway.models.image_limits import ImageError

__all__ = [
    "FORMATS",
    "ImageError",
    "ImageFile",
    "Picture",
    "decode",
    "open_image",
    "peak_bytes",
]

# The transposition that turns an image upright, by its EXIF orientation.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# The most memory that decoding takes, measured: 7 bytes a pixel for most JPEG and PNG files, 10 for
# progressive JPEGs that have to be turned, 10 to 13 for AVIF, 16 for WebP, 17 for TIFFs of floats.
PEAK_BYTES_PER_PIXEL = 17
# A JPEG that is decoded at a reduced size takes these of them: the coefficients of a progressive one.
PEAK_BYTES_PER_SKIPPED_PIXEL = 6
# An image more elongated than this is not decoded at a reduced size: its shorter side has few pixels.
MAX_SCALED_RATIO = 16

# The largest value of a range, and the factor that brings its values to 8 bits.
_FLOAT_RANGES = ((1, 255), (0xFF, 1), (0xFFFF, 1 / (1 << 8)), (0xFFFFFFFF, 1 / (1 << 24)))

# Pixels that are converted to RGB at a time: they fit into a core's cache.
PIXELS_PER_CHUNK = 64_000

# Pillow warns of odd metadata, which is no reason to refuse the pixels. The filter is set once for the whole
# process: `catch_warnings` swaps state of the whole process, so threads would have to take turns with it.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode(data: bytes, *, max_pixels: int) -> NDArray[np.uint8]:
    """Decode an image file: `open_image`, then `ImageFile.decode`."""
    return open_image(data, max_pixels=max_pixels).decode()


def open_image(data: bytes, *, max_pixels: int) -> "ImageFile":
    """Read the header of an image file of one of `FORMATS`, and check it.

    Raises ImageError for no data, an unknown format, and a damaged header. An image of more than `max_pixels`
    pixels (or Pillow's own limit, 178,956,970) is refused, and so are tiles and frames of more pixels. A file
    of more parts or scans than any encoder writes is refused too.
    """
    if not data:
        raise ImageError("The image is empty: it has no bytes.")
    try:
        image_limits.check_offsets(data)
        image: Image.Image = Image.open(image_limits.File(data), formats=FORMATS)
        pixels = image_limits.check_parts(data, image, max_pixels)
    except UnidentifiedImageError as error:
        kind = looks_like(data)
        raise ImageError(
            f"The data is not an image in a supported format ({', '.join(FORMATS)})"
            + (f": it looks like {kind}." if kind else ".")
        ) from error
    except Image.DecompressionBombError as error:
        limit = min(max_pixels, 2 * (Image.MAX_IMAGE_PIXELS or max_pixels))
        raise ImageError(f"The image has too many pixels; the limit is {limit}.") from error
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # Pillow's plugins raise many kinds on bad headers
        raise ImageError("The image header is damaged, or its metadata is too large.") from error
    image_limits.check_size(image.width, image.height, max_pixels)
    return ImageFile(image, max_pixels, PEAK_BYTES_PER_PIXEL * pixels)


def _scale_for(width: int, height: int, min_side: int) -> int:
    """Return by how much a JPEG of this size is decoded smaller: 4, 2 or 1.

    A quarter is the coarser the fewer pixels it leaves, so it leaves twice as many as a half has to. The last
    pixels of an image whose sides are no multiples would show less than whole ones.
    """
    short, long = sorted((width, height))
    if long <= MAX_SCALED_RATIO * short:
        for scale in (4, 2):
            if short >= scale * scale // 2 * min_side and width % scale == height % scale == 0:
                return scale
    return 1


def peak_bytes(data: bytes, width: int, height: int, min_side: int | None) -> int:
    """Return the most memory that `ImageFile.decode_picture` takes for a JPEG or PNG of this size."""
    scale = 1
    if min_side is not None and data.startswith(b"\xff\xd8"):
        scale = _scale_for(width, height, min_side)
    return _peak_bytes(width * height, scale)


def _peak_bytes(pixels: int, scale: int) -> int:
    if scale == 1:
        return PEAK_BYTES_PER_PIXEL * pixels
    return PEAK_BYTES_PER_SKIPPED_PIXEL * pixels + PEAK_BYTES_PER_PIXEL * (pixels // scale**2 + 1)


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An upright RGB image as Pillow holds it, perhaps decoded at a reduced size.

    size: (width, height) of the image at its full size.
    """

    image: Image.Image
    size: tuple[int, int]

    @classmethod
    def of(cls, pixels: NDArray[np.uint8]) -> Self:
        """Return RGB uint8 [H,W,3] in Pillow's form."""
        height, width = pixels.shape[:2]
        return cls(Image.fromarray(pixels), (width, height))

    def resize(self, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
        """Return the image in another size (width, height)."""
        return self.image if self.image.size == size else self.image.resize(size, resample)


@dataclass(frozen=True, slots=True, eq=False)
class ImageFile:
    """An image file whose header was read. `peak_bytes` is the most memory that decoding it takes."""

    image: Image.Image
    max_pixels: int
    peak_bytes: int

    @property
    def pixel_bytes(self) -> int:
        """Bytes of what `decode` returns."""
        return 3 * self.image.width * self.image.height

    def peak_bytes_at(self, min_side: int | None) -> int:
        """Return the most memory that `decode_picture` takes."""
        scale = self._scale(min_side)
        if scale == 1:
            return self.peak_bytes
        return _peak_bytes(self.image.width * self.image.height, scale)

    def decode_picture(self, min_side: int | None = None) -> Picture:
        """Decode the image once, as `decode` does, but leave it in Pillow's form.

        With `min_side`, a large JPEG is decoded at a half or a quarter of its size, as long as either side
        keeps so many pixels (of a quarter twice as many). Raises ImageError for damaged or truncated data.
        """
        image = self.image
        with self._refusing_damage():
            width, height = image.size
            scale = self._scale(min_side)
            if scale > 1:
                image.draft(None, (width // scale, height // scale))
            transpose = self._load()
            picture = _to_picture(self.image if transpose is None else self.image.transpose(transpose))
            return Picture(picture, (scale * picture.width, scale * picture.height))

    def decode(self) -> NDArray[np.uint8]:
        """Decode the first frame or page to upright RGB, once.

        Returns uint8 [H,W,3], contiguous and read-only. 8-bit images are equal to Pillow's
        `ImageOps.exif_transpose(Image.open(...)).convert("RGB")`: alpha is dropped (not blended over a
        background), CMYK is converted without a colour profile, the EXIF orientation is applied.

        Grey values of more than 8 bits are scaled by the following rule, because Pillow's conversion would
        clip them to white. 16-bit files keep the high byte, as Pillow does for 16-bit colour. The values of
        32-bit integers and floats are taken to have 8, 16 or 32 bits, whichever first holds the largest
        value, and the highest 8 of these bits are kept. Floats may also range from 0 to 1. If a float is
        beyond 32 bits, the largest becomes white. A range holds floats up to a quarter above it, because
        filters overshoot. Negative values and NaN are black, infinity is white.

        Raises ImageError for damaged or truncated data.
        """
        with self._refusing_damage():
            transpose = self._load()
            return _to_rgb(self.image if transpose is None else self.image.transpose(transpose))

    def _scale(self, min_side: int | None) -> int:
        if min_side is None or self.image.format not in ("JPEG", "MPO"):
            return 1
        return _scale_for(self.image.width, self.image.height, min_side)

    def _load(self) -> Image.Transpose | None:
        """Let Pillow read the pixels; return how they are turned upright."""
        self.image.load()
        # A GIF frame may be larger than the screen its header declares.
        image_limits.check_size(self.image.width, self.image.height, self.max_pixels)
        return _upright_transpose(self.image)

    @contextmanager
    def _refusing_damage(self) -> Iterator[None]:
        image_format = self.image.format
        try:
            yield
        except (ImageError, MemoryError):
            raise
        except Exception as error:
            raise ImageError(
                f"The {image_format} image is damaged, truncated or of an unsupported kind."
            ) from error


def _upright_transpose(image: Image.Image) -> Image.Transpose | None:
    try:
        return _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow raises many kinds on damaged metadata, and the pixels may be good
        return None


def _to_picture(image: Image.Image) -> Image.Image:
    """Return an image as RGB, equal to what `_to_rgb` gives."""
    if image.mode == "RGB":
        return image
    image.info.pop("transparency", None)
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_high_bits(np.asarray(image)))
    return image.convert("RGB")


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    # Pillow drops this anyway when it converts a palette, but warns of it.
    image.info.pop("transparency", None)
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_high_bits(np.asarray(image)))
    rgb = np.empty((image.height, image.width, 3), np.uint8)
    # Some rows at a time: Pillow's copies of a whole image would take four times its memory.
    rows = max(1, PIXELS_PER_CHUNK // image.width)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        part = image.crop((0, top, image.width, bottom))
        rgb[top:bottom] = np.asarray(part if part.mode == "RGB" else part.convert("RGB"))
    rgb.flags.writeable = False
    return rgb


def _high_bits(grey: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Scale grey values of any type to 8 bits, by the rule of `decode`."""
    if grey.dtype.itemsize == 2:
        return (grey.astype(np.uint16) >> 8).astype(np.uint8)
    # In place from here on: these images are the largest, with four bytes a pixel.
    if grey.dtype.kind == "i":
        whole = np.maximum(grey.astype(np.int32, copy=False), 0)
        whole >>= next(bits for bits in (0, 8, 24) if int(whole.max()) >> bits < 256)
        return whole.astype(np.uint8)
    values = np.maximum(grey.astype(np.float32, copy=False), 0)
    np.nan_to_num(values, copy=False, nan=0, posinf=np.inf)
    peak = float(values.max(where=np.isfinite(values), initial=0))
    values *= next((scale for top, scale in _FLOAT_RANGES if peak <= 1.25 * top), 255.5 / max(peak, 1))
    if peak <= 1.25:
        np.rint(values, out=values)
    return np.minimum(values, 255, out=values).astype(np.uint8)

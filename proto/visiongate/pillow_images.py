"""Pillow images of any mode: as files that keep their values, and as RGB, as the server sees them."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

# Modes that no file format has, or that libtiff converts with its own rounding, and modes of the same pixels.
_SAME = {
    "La": "LA", "PA": "RGBA", "RGBa": "RGBA", "RGBX": "RGB", "HSV": "RGB", "YCbCr": "RGB",
    "I;16L": "I;16", "I;16B": "I;16", "I;16N": "I;16",
}  # fmt: skip
_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
# Larger TIFF files are compressed. That takes long, and saves little if the values come from a sensor.
_PLAIN_TIFF_BYTES = 16 << 20
# Larger images become WebP: as quick as PNG at its lowest level, and smaller by a tenth to a third.
_PNG_PIXELS = 4_000_000
_MAX_WEBP_SIDE = 16_383

# For floats: the largest value of each range, and the factor of its values.
_FLOAT_RANGES = ((1, 255), (0xFF, 1), (0xFFFF, 1 / (1 << 8)), (0xFFFFFFFF, 1 / (1 << 24)))


def lossless_file(image: Image.Image) -> bytes:
    """Return a file of the upright image with all its values: the server scales them."""
    image = _upright(image)
    file = io.BytesIO()
    pixels = image.width * image.height
    if image.mode == "RGB" and pixels > _PNG_PIXELS and max(image.size) <= _MAX_WEBP_SIDE:
        image.save(file, "WEBP", lossless=True, quality=0, method=0)
    elif image.mode in _PNG_MODES:
        image.save(file, "PNG", compress_level=1)
    else:
        is_large = 4 * pixels > _PLAIN_TIFF_BYTES
        image.save(file, "TIFF", compression="tiff_adobe_deflate" if is_large else None)
    return file.getvalue()


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the image upright and in RGB, with the pixels that the server sees: what captions are drawn on.

    The rules must agree with `decode` in the server's `gateway/models/image.py`: alpha is dropped, grey of
    more than 8 bits is scaled. The client cannot import it; tests compare the two.
    """
    image = _upright(image)
    if image.mode.startswith("I"):
        image = Image.fromarray(_of_integers(np.asarray(image)))
    elif image.mode == "F":
        image = Image.fromarray(_of_floats(np.asarray(image)))
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    """Return a copy in a mode that files have, turned as its EXIF data says, without any metadata."""
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # damaged metadata on good pixels
        image = image.copy()
    # `save` would read it: the compression of the file that the image came from, which may lose pixels; a
    # colour that stands for transparent; a colour profile that is larger than the pixels.
    image.info = {}
    return _in_mode(image, _SAME[image.mode]) if image.mode in _SAME else image


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        # Pillow does not convert between byte orders.
        return Image.fromarray(np.asarray(image).astype("<u2"))
    return image.convert(mode)


def _of_integers(grey: NDArray[np.int32] | NDArray[np.uint16]) -> NDArray[np.uint8]:
    if grey.dtype.itemsize == 2:
        return (grey >> 8).astype(np.uint8)
    values: NDArray[np.int32] = np.maximum(grey, 0)
    shift = next(bits for bits in (0, 8, 24) if int(values.max()) >> bits < 256)
    return (values >> shift).astype(np.uint8)


def _of_floats(grey: NDArray[np.float32]) -> NDArray[np.uint8]:
    values: NDArray[np.float32] = np.nan_to_num(np.maximum(grey, 0), nan=0, posinf=np.inf)
    peak = float(values.max(where=np.isfinite(values), initial=0))
    # Filters overshoot, so a range takes values a little above its largest.
    values *= next((scale for top, scale in _FLOAT_RANGES if peak <= 1.25 * top), 255.5 / max(peak, 1))
    if peak <= 1.25:
        values = values.round()
    return values.clip(0, 255).astype(np.uint8)

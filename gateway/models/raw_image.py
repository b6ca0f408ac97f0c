"""Pixels that come as bytes, without a file format."""

from enum import Enum

import numpy as np
from numpy.typing import NDArray

from gateway.models import image_limits
from gateway.models.image import ImageError


class PixelOrder(Enum):
    """What the bytes of a pixel mean: their names in order."""

    RGB = "rgb"
    BGR = "bgr"
    GRAY = "gray"


def from_raw(
    data: bytes, width: int, height: int, order: PixelOrder = PixelOrder.RGB, *, max_pixels: int
) -> NDArray[np.uint8]:
    """Return raw bytes (row by row from the top, no padding) as RGB uint8 [height,width,3], read-only.

    RGB bytes are viewed, the others are copied. Raises ImageError if the size is not positive, over
    `max_pixels`, or not that of the data.
    """
    image_limits.check_size(width, height, max_pixels)
    channels = 1 if order is PixelOrder.GRAY else 3
    expected = width * height * channels
    if len(data) != expected:
        raise ImageError(
            f"A raw {order.name} image of {width}x{height} pixels has {expected} bytes, "
            f"but {len(data)} were sent."
        )
    pixels = np.frombuffer(data, dtype=np.uint8).reshape(height, width, channels)
    if order is PixelOrder.RGB:
        return pixels
    rgb = pixels[:, :, ::-1].copy() if order is PixelOrder.BGR else np.repeat(pixels, 3, axis=2)
    rgb.flags.writeable = False
    return rgb

"""How colours are laid over a picture."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from export.demo.scenes.scene import Pixels

# OpenCV takes places in fixed point: this many bits of a pixel, so 16 parts of it.
FRACTION_BITS = 4


def blend(picture: Pixels, cover: Pixels, colour: NDArray[np.float64]) -> None:
    """Lay a colour over the picture, as opaque as `cover` says: 0 is not at all, 255 is fully."""
    x, y, width, height = cv2.boundingRect(cover)
    if not width:
        return
    part = picture[y : y + height, x : x + width]
    opacity = cover[y : y + height, x : x + width, None].astype(np.float32) / 255
    part[...] = (part + opacity * (np.asarray(colour, np.float32) - part) + 0.5).astype(np.uint8)


def fill(canvas: Pixels, polygon: NDArray[np.float64], colour: Sequence[float]) -> None:
    """Fill a polygon [N,2], whose corners may lie between pixels, with smooth edges."""
    cv2.fillPoly(canvas, [_fixed_point(polygon)], colour, cv2.LINE_AA, shift=FRACTION_BITS)


def ellipse_cover(shape: tuple[int, ...], middle: NDArray[np.float64], radii: NDArray[np.float64]) -> Pixels:
    """Return how much of each pixel of a canvas an upright ellipse covers: 255 is all of it."""
    cover = np.zeros(shape, np.uint8)
    (x, y), (x_radius, y_radius) = _fixed_point(middle).tolist(), _fixed_point(radii).tolist()
    cv2.ellipse(cover, (x, y), (x_radius, y_radius), 0, 0, 360, 255, -1, cv2.LINE_AA, shift=FRACTION_BITS)
    return cover


def around(middle: NDArray[np.float64], half_width: float, half_height: float) -> NDArray[np.float32]:
    """Return the box float32 [4] xyxy that has this middle."""
    half = np.array([half_width, half_height])
    return np.concatenate([middle - half, middle + half]).astype(np.float32)


def _fixed_point(places: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.round(places * (1 << FRACTION_BITS)).astype(np.int32)

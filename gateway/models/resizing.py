"""Resizing that several models share."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def resize(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize uint8 [H,W,3] to `size` (height, width) with Pillow's bilinear filter.

    The filter widens when it shrinks an image (antialiasing), as in transformers' `...ImageProcessorPil`
    classes. The plain bilinear filters of OpenCV and torch do not.
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

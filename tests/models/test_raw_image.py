"""Pixels that come as bytes: their layout, and sizes that do not fit."""

import numpy as np
import pytest

from gateway.models.image import ImageError
from gateway.models.raw_image import PixelOrder, from_raw

DATA = bytes(range(18))


def test_rows_come_from_the_top_without_padding() -> None:
    image = from_raw(DATA, 3, 2, max_pixels=6)
    assert image.shape == (2, 3, 3)
    assert image[1, 0].tolist() == [9, 10, 11]


def test_every_order_becomes_rgb() -> None:
    assert from_raw(DATA, 3, 2, PixelOrder.BGR, max_pixels=6)[1, 0].tolist() == [11, 10, 9]
    gray = from_raw(DATA, 9, 2, PixelOrder.GRAY, max_pixels=18)
    assert gray.shape == (2, 9, 3)
    assert gray[1, 0].tolist() == [9, 9, 9]


@pytest.mark.parametrize("order", PixelOrder)
def test_pixels_that_calls_share_cannot_be_changed(order: PixelOrder) -> None:
    image = from_raw(bytes(6 if order is PixelOrder.GRAY else 18), 3, 2, order, max_pixels=6)
    assert image.dtype == np.uint8
    assert not image.flags.writeable


@pytest.mark.parametrize(
    ("size", "order", "max_pixels", "says"),
    [
        ((3, 2), PixelOrder.RGB, 6, "raw RGB image of 3x2 pixels has 18 bytes, but 17 were sent"),
        ((3, 2), PixelOrder.GRAY, 6, "raw GRAY image of 3x2 pixels has 6 bytes, but 17 were sent"),
        ((3, 2), PixelOrder.RGB, 5, "limit is 5"),
        ((0, 2), PixelOrder.RGB, 6, "at least 1"),
        ((3, 0), PixelOrder.RGB, 6, "at least 1"),
        ((-3, -2), PixelOrder.RGB, 6, "at least 1"),
    ],
)
def test_a_size_that_does_not_fit(
    size: tuple[int, int], order: PixelOrder, max_pixels: int, says: str
) -> None:
    with pytest.raises(ImageError, match=says):
        from_raw(DATA[:-1], *size, order, max_pixels=max_pixels)

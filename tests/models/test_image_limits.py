from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import bad_input
from bad_input import encoded
from gateway.models import image as images

LIMIT = 10_000_000


def test_pixel_limit_is_inclusive(noise: Callable[[int, int], NDArray[np.uint8]]) -> None:
    data = encoded(Image.fromarray(noise(20, 30)), "PNG")
    assert images.decode(data, max_pixels=600).shape == (20, 30, 3)
    with pytest.raises(images.ImageError, match=r"30x20 = 600 pixels; the limit is 599 pixels"):
        images.decode(data, max_pixels=599)


@pytest.mark.parametrize("side", [5_000, 10_000, 60_000])
def test_bomb_is_refused_from_its_header(side: int) -> None:
    # 10,000 squared makes Pillow warn, 60,000 squared makes it raise. Decoded, this data is "truncated".
    with pytest.raises(images.ImageError, match=r"limit is 10000000"):
        images.decode(bad_input.png(size=(side, side)), max_pixels=LIMIT)


def test_limit_over_that_of_pillow_names_that_of_pillow() -> None:
    with pytest.raises(images.ImageError, match=r"limit is 178956970"):
        images.decode(bad_input.png(size=(60_000, 60_000)), max_pixels=10**12)


def test_no_side_may_be_zero() -> None:
    with pytest.raises(images.ImageError):
        images.decode(bad_input.png(size=(0, 5)), max_pixels=LIMIT)


def test_an_avif_whose_frames_are_larger_than_it_says_is_refused() -> None:
    data = bad_input.avif_of((8, 8), 1_200)
    with pytest.raises(images.ImageError, match="AVIF image is 8x8 pixels, but its frames have 1440000"):
        images.decode(data, max_pixels=LIMIT)


def test_avif_parts_are_counted() -> None:
    data = bad_input.avif_of((8, 8))
    for junk in (b"\0\0\0\x08free" * 6_000, b"\0\0\0\1free\0\0\0\0\0\0\0\x10" * 6_000):
        with pytest.raises(images.ImageError, match="too many parts"):
            images.decode(data + junk, max_pixels=LIMIT)

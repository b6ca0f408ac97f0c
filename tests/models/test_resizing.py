from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from torch import from_numpy
from torch.nn.functional import interpolate

from gateway.models.resizing import place, resize

Noise = Callable[[int, int], NDArray[np.uint8]]


@pytest.mark.parametrize("size", [(20, 30), (97, 40), (200, 300), (1, 1)])
def test_resize_widens_its_filter_when_it_shrinks(noise: Noise, size: tuple[int, int]) -> None:
    image = noise(90, 120)
    planes = from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    expected = interpolate(planes, size, mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()
    resized = resize(image, size)
    assert resized.dtype == np.uint8
    np.testing.assert_allclose(resized, expected, atol=1.01)


def test_an_image_of_that_size_is_not_touched(noise: Noise) -> None:
    image = noise(9, 7)
    assert resize(image, (9, 7)) is image


def test_place_is_top_left_on_black() -> None:
    canvas = place(np.asarray(Image.new("RGB", (3, 2), "white")), (4, 5))
    assert (canvas[:2, :3] == 255).all()
    assert canvas.shape == (4, 5, 3)
    assert canvas.sum(dtype=int) == 2 * 3 * 3 * 255

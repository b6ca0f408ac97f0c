import math
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from torchvision import transforms  # type: ignore[import-untyped]

from gateway.models.gaze import GazeSpec, direction

L2CS = GazeSpec(face_size=448, crop_size=224)
Pixels = NDArray[np.uint8]
Noise = Callable[[int, int], Pixels]


def authors_crop(image: Pixels, box: list[float]) -> Pixels:
    """What the authors' pipeline does with a frame and a detector's box, up to normalising."""
    left, top, right, bottom = (int(value) for value in box)
    face = image[max(top, 0) : bottom, max(left, 0) : right]
    small = cv2.resize(np.ascontiguousarray(face), (224, 224))
    return np.asarray(transforms.Resize(448)(transforms.ToPILImage()(small)))


@pytest.mark.parametrize(
    "box",
    [
        [10.9, 20.2, 110.7, 160.9],
        [-12.5, -7.9, 80, 90],
        [250.4, 150.3, 400, 300],
        [0, 0, 300, 200],
        [100, 100, 101, 102],
        [3.0, 5.0, 290.0, 6.0],
    ],
)
def test_crop_equals_the_authors(noise: Noise, box: list[float]) -> None:
    image = noise(200, 300)
    crop = L2CS.crop(image, np.array(box, np.float32))
    assert crop.shape == (448, 448, 3)
    assert crop.dtype == np.uint8
    np.testing.assert_array_equal(crop, authors_crop(image, box))


def test_crop_of_a_photo_equals_the_authors(photo: Callable[[str], Pixels]) -> None:
    image = photo("skimage_astronaut.png")
    box = [178.1, 64.9, 269.5, 176.4]
    np.testing.assert_array_equal(L2CS.crop(image, np.array(box, np.float32)), authors_crop(image, box))


def test_without_a_smaller_square_the_crop_is_resized_once(noise: Noise) -> None:
    image = noise(200, 300)
    crop = GazeSpec(face_size=448, crop_size=448).crop(image, np.array([10, 20, 110, 160], np.float32))
    np.testing.assert_array_equal(crop, cv2.resize(image[20:160, 10:110].copy(), (448, 448)))


@pytest.mark.parametrize(
    ("box", "pixel"),
    [
        ([10.2, 20.1, 10.8, 20.6], (20, 10)),
        ([299.5, 199.5, 300, 200], (199, 299)),
        ([300, 200, 310, 210], (199, 299)),
        ([-5, -5, -2, -2], (0, 0)),
    ],
)
def test_less_than_a_pixel_is_one(noise: Noise, box: list[float], pixel: tuple[int, int]) -> None:
    image = noise(200, 300)
    crop = L2CS.crop(image, np.array(box, np.float32))
    assert (crop == image[pixel]).all()


@pytest.mark.parametrize(
    ("yaw", "pitch", "expected"),
    [
        (0, 0, (0, 0, -1)),  # into the camera
        (math.pi / 2, 0, (-1, 0, 0)),  # to the left edge of the image
        (-math.pi / 2, 0, (1, 0, 0)),
        (0, math.pi / 2, (0, -1, 0)),  # up
        (0, -math.pi / 2, (0, 1, 0)),
        (math.pi, 0, (0, 0, 1)),  # away from the camera
        (math.pi / 4, 0, (-(0.5**0.5), 0, -(0.5**0.5))),
    ],
)
def test_sign_convention(yaw: float, pitch: float, expected: tuple[float, ...]) -> None:
    np.testing.assert_allclose(direction(np.array([yaw, pitch], np.float32)), expected, atol=1e-6)


def test_directions_have_length_one_and_mirror() -> None:
    angles = np.random.default_rng(0).uniform(-math.pi, math.pi, (100, 2)).astype(np.float32)
    vectors = direction(angles)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(direction(angles * np.array([-1, 1], np.float32)), vectors * [-1, 1, 1])

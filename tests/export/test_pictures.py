import numpy as np

from export.pictures import noise, noise_images, tinted_noise


def test_noise_is_seeded_and_varied() -> None:
    first, again, other = (noise(seed, 1, 64, 64) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.std() > 30


def test_every_tint_is_another_colour() -> None:
    pictures = tinted_noise(0, 4, 64, 64)
    assert (pictures.shape, pictures.dtype) == ((4, 64, 64, 3), np.uint8)
    means = pictures.mean((1, 2))
    for index, mean in enumerate(means):
        assert np.abs(np.delete(means, index, 0) - mean).max(1).min() > 20


def test_a_picture_for_every_valid_size_has_noise_everywhere() -> None:
    inputs = noise_images(0, 64, 96, [(64, 96), (40, 51)])
    assert inputs["valid_size"].tolist() == [[64, 96], [40, 51]]
    assert inputs["image"].shape == (2, 64, 96, 3)
    assert inputs["image"][1, 40:, 51:].std() > 10

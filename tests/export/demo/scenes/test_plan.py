import colorsys

import numpy as np
import pytest
from PIL import Image

from export.demo.scenes import COLOURS, PHRASES, Plan, draw

SEEDS = range(8)


PLAIN = Plan(words=(0, 0), faces=(0, 0), degraded=False)


def test_a_seed_is_a_scene() -> None:
    one, same, other = draw(1, 120, 90), draw(1, 120, 90), draw(2, 120, 90)
    np.testing.assert_array_equal(one.image, same.image)
    assert [thing.phrase for thing in one.things] == [thing.phrase for thing in same.things]
    assert one.image.shape == (90, 120, 3)
    assert one.image.dtype == np.uint8
    assert not np.array_equal(one.image, other.image)


@pytest.mark.parametrize("seed", SEEDS)
def test_masks_show_their_colour_and_boxes_are_tight(seed: int) -> None:
    scene = draw(seed, 240, 180, PLAIN)
    assert scene.things
    for thing in scene.things:
        assert thing.phrase in PHRASES
        rows, columns = np.nonzero(thing.mask)
        tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_array_equal(thing.box, tight)
        pixel = np.median(scene.image[thing.mask], axis=0) / 255
        hue, saturation, _ = colorsys.rgb_to_hsv(*pixel)
        away = abs((hue * 360 - COLOURS[thing.colour][0] + 180) % 360 - 180)
        assert away < 12
        assert saturation > 0.5


def test_pictures_are_plain_images() -> None:
    assert Image.fromarray(draw(0, 64, 64).image).mode == "RGB"

import colorsys
from typing import Any

import numpy as np

from export.demo import clip_captions, clip_pictures, scenes
from export.demo.clip_pictures import Square
from gateway.models.clip import ClipSpec


def test_pictures_show_their_colours(clip_model: Any) -> None:
    """Whole pictures and cuts: most of what is colourful has the colour of the one thing."""
    pictures = clip_pictures.draw_pictures(Square(clip_model), range(40))
    assert pictures.images.shape[1:] == (64, 64, 3)
    assert pictures.images.shape[0] == len(pictures.contents) > 40
    checked = 0
    for image, content in zip(pictures.images, pictures.contents, strict=True):
        if content[1, 1] or not content[0, 0]:
            continue
        colourful = image[np.ptp(image, axis=2) > 60] / 255
        hues = np.array([colorsys.rgb_to_hsv(*pixel)[0] for pixel in colourful]) * 360
        away = (hues - scenes.COLOURS[clip_captions.COLOURS[content[0, 0]]][0] + 180) % 360 - 180
        assert abs(np.median(away)) < 15
        checked += 1
    assert checked > 15


def test_pictures_are_made_square_as_the_gateway_does(clip_model: Any) -> None:
    scene = scenes.draw(scenes.FIRST_UNSEEN_SEED, 230, 150)
    spec = ClipSpec(64, "shortest", "bicubic", 0, 32, 100.0, 64, None, 0, 0)  # type: ignore[arg-type]
    np.testing.assert_array_equal(Square(clip_model)(scene.image), spec.preprocess(scene.image))

import math

import numpy as np
import pytest

from export.demo.scenes import SHAPES, Painter


def painter(seed: int = 0, size: int = 200) -> Painter:
    return Painter(np.random.default_rng(seed), size, size)


def test_shapes_differ_by_how_much_of_their_box_they_fill() -> None:
    filled = {}
    for shape in SHAPES:
        one = painter()
        assert one.shape("red", shape, 0.5, at=(0.5, 0.5))
        [thing] = one.scene(degraded=False).things
        x_min, y_min, x_max, y_max = thing.box
        assert 0.35 * 200 < x_max - x_min < 0.6 * 200
        filled[shape] = float(thing.mask.sum() / ((x_max - x_min) * (y_max - y_min)))
    assert filled["circle"] == pytest.approx(math.pi / 4, abs=0.03)
    assert filled["triangle"] < 0.6
    assert filled["star"] < filled["cross"] < filled["circle"]

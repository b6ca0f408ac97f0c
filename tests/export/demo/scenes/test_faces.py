import math

import numpy as np
import pytest

from export.demo.scenes import Painter


def painter(seed: int = 0, size: int = 200) -> Painter:
    return Painter(np.random.default_rng(seed), size, size)


@pytest.mark.parametrize(("yaw", "pitch"), [(35, 0), (-35, 0), (0, 22), (0, -22)])
def test_faces_look_where_they_say(yaw: float, pitch: float) -> None:
    """Positive yaw is to the picture's left, positive pitch upwards: nose and pupils go there."""
    angles = (math.radians(yaw), math.radians(pitch))
    for seed in range(4):
        ahead, turned = painter(seed), painter(seed)
        assert ahead.face(0.8, at=(0.5, 0.5), yaw_pitch=(0, 0))
        assert turned.face(0.8, at=(0.5, 0.5), yaw_pitch=angles)
        [straight], [aside] = (one.scene(degraded=False).faces for one in (ahead, turned))
        np.testing.assert_allclose(aside.yaw_pitch, angles, rtol=1e-6)
        x, y = aside.landmarks[2] - straight.landmarks[2]
        assert np.sign(x) == -np.sign(yaw) or not yaw
        assert np.sign(y) == -np.sign(pitch) or not pitch
        # The person's right eye, in the picture's left, comes first, as in YuNet.
        assert aside.landmarks[0, 0] < aside.landmarks[1, 0]
        assert (aside.landmarks > aside.box[:2]).all()
        assert (aside.landmarks < aside.box[2:]).all()

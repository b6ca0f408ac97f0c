"""The scene of a seed, drawn by a plan."""

from dataclasses import dataclass

import numpy as np

from export.demo.choice import one_of
from export.demo.scenes.painter import Painter
from export.demo.scenes.scene import COLOURS, SHAPES, Scene
from export.demo.scenes.words import FONTS, word

FIRST_UNSEEN_SEED = 1_000_000_000
"""Training takes the seeds below this one; tests and figures take this one and those above."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a scene holds: how many of each thing and how large, as (least, most).

    Sizes are shares of the picture's shorter side.
    """

    shapes: tuple[int, int] = (1, 6)
    words: tuple[int, int] = (0, 3)
    faces: tuple[int, int] = (0, 1)
    shape_size: tuple[float, float] = (0.16, 0.42)
    font_size: tuple[float, float] = (0.06, 0.11)
    face_size: tuple[float, float] = (0.26, 0.6)
    fonts: tuple[str, ...] = tuple(FONTS)
    degraded: bool = True
    """Whether the picture is blurred, noisy, and compressed as JPEG."""


def draw(seed: int, width: int, height: int, plan: Plan = Plan()) -> Scene:
    """Draw the scene of a seed, `width` x `height` pixels."""
    random = np.random.default_rng(seed)
    painter = Painter(random, width, height)
    for _ in range(random.integers(plan.faces[0], plan.faces[1] + 1)):
        painter.face(random.uniform(*plan.face_size))
    for _ in range(random.integers(plan.words[0], plan.words[1] + 1)):
        family = one_of(random, plan.fonts)
        painter.word(word(random), family, random.uniform(*plan.font_size))
    for _ in range(random.integers(plan.shapes[0], plan.shapes[1] + 1)):
        colour, shape = one_of(random, list(COLOURS)), one_of(random, SHAPES)
        painter.shape(colour, shape, random.uniform(*plan.shape_size))
    return painter.scene(degraded=plan.degraded)

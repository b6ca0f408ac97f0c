"""Everything on one drawn picture: what is there, what the models say is there, and both in a table."""

import math

import numpy as np
from PIL import Image

from export.demo import scenes
from export.demo.families import FAMILIES
from export.demo.family import Row
from visiongate import AsyncClient, draw

SIZE = (800, 600)
"""Width and height of the picture, in pixels."""


def scene(seed: int) -> scenes.Scene:
    """Draw the demo's picture. Things and their places are fixed; background and shades follow the seed."""
    painter = scenes.Painter(np.random.default_rng(scenes.FIRST_UNSEEN_SEED + seed), *SIZE)
    painter.face(0.5, at=(0.8, 0.32), yaw_pitch=(math.radians(28), math.radians(-12)))
    painter.word("Triton", scenes.PILLOW_FONT, 0.1, at=(0.3, 0.12))
    painter.word("sees", scenes.PILLOW_FONT, 0.08, at=(0.16, 0.9))
    painter.word("2026", scenes.PILLOW_FONT, 0.08, at=(0.86, 0.9))
    for colour, shape, size, at in (
        ("red", "circle", 0.34, (0.17, 0.42)),
        ("blue", "square", 0.3, (0.29, 0.58)),
        ("yellow", "star", 0.34, (0.52, 0.36)),
        ("green", "triangle", 0.28, (0.43, 0.76)),
        ("purple", "cross", 0.26, (0.64, 0.74)),
    ):
        painter.shape(colour, shape, size, at)
    return painter.scene(degraded=False)


async def ask(client: AsyncClient, picture: scenes.Scene) -> tuple[list[Row], Image.Image]:
    """Ask all families and return the rows of the table, and the picture with the answers on it."""
    answers = [await family.ask(client, picture) for family in FAMILIES.values() if family.ask is not None]
    rows = [row for answer in answers for row in answer.rows]
    items = [item for answer in answers for item in answer.items]
    return rows, draw.draw(Image.fromarray(picture.image), items)

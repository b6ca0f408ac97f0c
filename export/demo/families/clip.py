"""CLIP in the demo: pictures that find their captions. The rows of `grounding_dino` show its answers, too."""

import math
from collections.abc import Sequence

import numpy as np

from export.demo import scenes
from export.demo.family import DemoFamily
from export.demo.measure import Advance, Figure, Measure, ask_all
from export.demo.scenes import FIRST_UNSEEN_SEED, PHRASES, Plan, Scene
from visiongate import AsyncClient

ONE_SHAPE = Plan(shapes=(1, 1), words=(0, 0), faces=(0, 0), shape_size=(0.35, 0.8))
ONE_SHAPE_OF_MANY_THINGS = Plan(shapes=(1, 1))
TWO_SHAPES = Plan(shapes=(2, 2), words=(0, 0), faces=(0, 0), shape_size=(0.3, 0.5))
GALLERY = 50
"""The number of images, and of captions, in one retrieval."""


async def classification(client: AsyncClient, pictures: Sequence[Scene], advance: Advance) -> list[Figure]:
    """Measure the share of pictures of one shape for which the best of all 30 captions is the right one.

    First on pictures of the shape alone, as the model learned. Then on whole scenes, where the shape is small
    and has words and a face around it.
    """

    async def share(plan: Plan) -> float:
        async def ask(index: int) -> bool | None:
            scene = scenes.draw(FIRST_UNSEEN_SEED + index, 240, 240, plan)
            if not scene.things:  # the shape found no place
                return None
            [[best]] = await client.classify([scene.image], PHRASES, prompt_template="a {}", top_k=1)
            return best.label == scene.things[0].phrase

        answers = await ask_all(ask, len(pictures), advance)
        return float(np.mean([right for right in answers if right is not None]))

    what = "CLIP: zero-shot top-1 of 30"
    return [
        Figure(f"{what}, one large shape alone", await share(ONE_SHAPE), 0.95),
        Figure(f"{what}, one shape in a whole scene", await share(ONE_SHAPE_OF_MANY_THINGS), 0.5),
    ]


async def retrieval(client: AsyncClient, pictures: Sequence[Scene], advance: Advance) -> list[Figure]:
    """Measure the share of pictures of one or two shapes whose nearest of 50 different captions is theirs."""

    async def ask(index: int) -> float:
        images, captions = gallery(index)
        rows = await client.embed_images([scene.image for scene in images])
        columns = await client.embed_texts(captions)
        return float(np.mean((rows @ columns.T).argmax(1) == np.arange(GALLERY)))

    shares = await ask_all(ask, _galleries(len(pictures)), advance)
    return [Figure("CLIP: image to text, recall@1 among 50", float(np.mean(shares)), 0.90)]


def gallery(index: int) -> tuple[list[Scene], list[str]]:
    """Return 50 pictures of one or two shapes and their captions, which all say different things."""
    pictures: dict[frozenset[str], Scene] = {}
    seed = FIRST_UNSEEN_SEED + 10_000 * (index + 1)
    while len(pictures) < GALLERY:
        scene = scenes.draw(seed, 240, 240, ONE_SHAPE if seed % 2 else TWO_SHAPES)
        phrases = frozenset(thing.phrase for thing in scene.things)
        if len(phrases) == len(scene.things):
            pictures.setdefault(phrases, scene)
        seed += 1
    captions = [" and ".join(f"a {thing.phrase}" for thing in scene.things) for scene in pictures.values()]
    return list(pictures.values()), captions


def _galleries(count: int) -> int:
    """Return how many galleries it takes to hold this many pictures."""
    return math.ceil(count / GALLERY)


FAMILY = DemoFamily(
    name="clip",
    place=6,
    training="export.demo.train_clip",
    measures=(Measure(classification, steps=lambda count: 2 * count), Measure(retrieval, steps=_galleries)),
)

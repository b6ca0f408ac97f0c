"""The pictures and phrases that the demo Grounding DINO learns from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from export.demo import scenes

PLAN = scenes.Plan(words=(0, 2))
MAX_PHRASES = 10
CONFUSABLE = 4.0
"""How much likelier a phrase is asked for if it shares a word with something that is there."""
FACE = "face"


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A picture uint8 [H,W,3], the names of its objects, and their boxes float32 [N,4] xyxy in 0..1."""

    image: NDArray[np.uint8]
    names: tuple[str, ...]
    boxes: NDArray[np.float32]


def draw(seed: int, width: int, height: int) -> Example:
    """Return the scene of a seed with the objects that phrases can find."""
    scene = scenes.draw(seed, width, height, PLAN)
    names = [thing.phrase for thing in scene.things] + [FACE] * len(scene.faces)
    boxes = [thing.box for thing in scene.things] + [face.box for face in scene.faces]
    size = np.array([width, height, width, height], np.float32)
    return Example(scene.image, tuple(names), (np.array(boxes, np.float32).reshape(-1, 4) / size).clip(0, 1))


def mirrored(example: Example, is_mirrored: bool) -> Example:
    """Return the example, or its image in a mirror."""
    if not is_mirrored:
        return example
    x_min, y_min, x_max, y_max = example.boxes.T
    boxes = np.stack([1 - x_max, y_min, 1 - x_min, y_max], axis=1)
    return replace(example, image=example.image[:, ::-1], boxes=boxes)


def phrases_for(names: Sequence[str], random: np.random.Generator, present: float = 0.8) -> list[str]:
    """Return phrases to ask for: what is there, each with the chance `present`, and some that is not there.

    Absent phrases that share a word with what is there teach most, and are chosen most often.
    """
    there = [name for name in dict.fromkeys(names) if random.random() < present]
    others = [name for name in (*scenes.PHRASES, FACE) if name not in names]
    count = int(random.integers(max(1, len(there)), MAX_PHRASES + 1)) - len(there)
    words = {word for name in names for word in name.split()}
    chances = np.array([1.0 if words.isdisjoint(name.split()) else CONFUSABLE for name in others])
    absent = random.choice(
        others, max(count, 0 if there else 1), replace=False, p=chances / chances.sum()
    ).tolist()
    phrases = there + absent
    return [phrases[index] for index in random.permutation(len(phrases))]

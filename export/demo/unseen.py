"""Scenes that no model was trained on, and what is asked about them."""

import numpy as np

from export.demo import scenes
from export.demo.scenes import FIRST_UNSEEN_SEED, PHRASES, Scene

# Width and height in pixels, in turn.
SIZES = ((480, 360), (360, 480), (400, 400))
PHRASES_ASKED = 10


def unseen(count: int) -> list[Scene]:
    """Return scenes of shapes, words and faces."""
    return [scenes.draw(FIRST_UNSEEN_SEED + index, *SIZES[index % len(SIZES)]) for index in range(count)]


def asked_phrases(scene: Scene, seed: int) -> list[str]:
    """Return ten phrases: all that are on the scene, and others that are not."""
    random = np.random.default_rng(seed)
    there = list(dict.fromkeys(thing.phrase for thing in scene.things))
    others = [phrase for phrase in PHRASES if phrase not in there]
    absent = random.choice(others, max(0, PHRASES_ASKED - len(there)), replace=False).tolist()
    return [str(phrase) for phrase in random.permutation(there + absent)]

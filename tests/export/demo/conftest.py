"""A client that knows the truth, the demo CLIP with seeded weights, and texts that its vocabulary spells."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from export import clip_weights
from export.demo.scenes import Scene
from export.families.clip import DEMO
from export.weights import randomise

TEXTS = [
    "a red circle",
    "An orange star, next to the purple cross.",
    "two astronauts' horses in 1983",
    "naïve café ☕ 圓形 \N{GRINNING FACE}",
    "&lt;b&gt; x   y",
]


@pytest.fixture(scope="session")
def clip_model() -> Any:
    """The demo architecture with seeded weights that can be halves."""
    from open_clip import CLIP

    model = CLIP(**DEMO)
    clip_weights.set_preprocessing(model, {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        randomise(model)
    return model.half().float().eval()


class Knowing:
    """A client that answers from the truth, or `wrong`."""

    def __init__(self, pictures: list[Scene], wrong: bool = False) -> None:
        self.wrong = wrong
        self.pictures = {scene.image.tobytes(): scene for scene in pictures}

    def _scene(self, image: Any) -> Scene:
        return self.pictures[image.tobytes()]

    def _box(self, box: Any) -> Any:
        return box + 1000 if self.wrong else box

    def _mask(self, mask: Any) -> Any:
        return SimpleNamespace(pixels=~mask if self.wrong else mask)

    async def detect(self, image: Any, phrases: list[str], **_options: Any) -> list[Any]:
        things = self._scene(image).things
        assert {thing.phrase for thing in things} <= set(phrases)
        return [SimpleNamespace(phrase=thing.phrase, box=self._box(thing.box)) for thing in things]

    async def classify(self, images: list[Any], _labels: Any, **_options: Any) -> list[Any]:
        # The order in which `segment_phrases` found them.
        things = next(iter(self.pictures.values())).things
        return [
            [SimpleNamespace(label="nothing" if self.wrong else thing.phrase)]
            for _, thing in zip(images, things, strict=True)
        ]

    async def segment(self, image: Any, **prompts: Any) -> list[list[Any]]:
        things = self._scene(image).things
        if "points" in prompts:
            for [(x, y)], thing in zip(prompts["points"], things, strict=True):
                assert thing.mask[int(y), int(x)]
        return [[self._mask(thing.mask)] for thing in things]

    async def segment_phrases(self, image: Any, _phrases: list[str], **_options: Any) -> list[Any]:
        return [
            SimpleNamespace(phrase=thing.phrase, mask=self._mask(thing.mask), score=0.9, box=thing.box)
            for thing in self._scene(image).things
        ]

    async def recognize_text(self, images: list[Any]) -> list[Any]:
        [image] = images
        words = [
            SimpleNamespace(
                text=word.text + ("x" if self.wrong else ""),
                box=word.box,
                quadrilateral=word.box[[0, 1, 2, 1, 2, 3, 0, 3]].reshape(4, 2),
            )
            for word in self._scene(image).words
        ]
        return [SimpleNamespace(words=lambda: iter(words))]

    async def estimate_gaze(self, image: Any) -> list[Any]:
        return [
            SimpleNamespace(
                box=face.box,
                yaw=face.yaw_pitch[0] + (0.3 if self.wrong else 0),
                pitch=face.yaw_pitch[1],
                landmarks=None,
                direction=np.array([0, 0, -1]),
            )
            for face in self._scene(image).faces
        ]

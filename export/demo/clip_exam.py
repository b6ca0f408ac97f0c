"""How well the demo CLIP does on unseen pictures, for the reports of its training."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from export import clip
from export.demo import scenes
from export.demo.clip_pictures import Square
from export.demo.scenes import FIRST_UNSEEN_SEED, Plan


class Exam:
    """Unseen pictures: some of one thing, to be named, and groups of 50 that must find their captions."""

    GROUP = 50

    def __init__(self, square: Square, count: int, first: int = FIRST_UNSEEN_SEED) -> None:
        plan = Plan((1, 1), words=(0, 0), faces=(0, 0), shape_size=(0.3, 0.8))
        single = [scenes.draw(seed, 240, 240, plan) for seed in range(first, first + count)]
        self._singles = np.stack([square(scene.image) for scene in single])
        self._phrases = [scenes.PHRASES.index(scene.things[0].phrase) for scene in single]
        self._groups = []
        seeds = itertools.count(first + count)
        for _ in range(max(1, count // 100)):
            group: dict[frozenset[str], NDArray[np.uint8]] = {}
            while len(group) < self.GROUP:
                scene = scenes.draw(next(seeds), 240, 240, replace(plan, shapes=(1, 2)))
                group.setdefault(frozenset(thing.phrase for thing in scene.things), square(scene.image))
            self._groups.append(group)

    def report(self, model: Any, tokenize: Any, device: torch.device) -> str:
        """Return a line of figures: the shares of pictures whose nearest caption is the right one."""

        def nearest(images: NDArray[np.uint8], captions: list[str]) -> NDArray[np.int64]:
            (rows,) = clip.ImageTower(model).to(device)(torch.from_numpy(images).to(device))
            columns = functional.normalize(model.encode_text(tokenize(captions).to(device)), dim=1)
            numbers: NDArray[np.int64] = (rows @ columns.T).argmax(1).cpu().numpy()
            return numbers

        named = nearest(self._singles, [f"a {phrase}" for phrase in scenes.PHRASES]) == self._phrases
        retrieved = [
            nearest(
                np.stack(list(group.values())),
                [" and ".join(f"a {phrase}" for phrase in sorted(phrases)) for phrases in group],
            )
            == np.arange(self.GROUP)
            for group in self._groups
        ]
        return f"{np.mean(named):.1%} named, {np.mean(retrieved):.1%} found among {self.GROUP}"

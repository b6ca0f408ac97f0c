"""The figures themselves: what a server that knows the truth gets, and one that does not."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from export.demo import evaluate
from export.demo.evaluate import GALLERY, Figure, angle, asked_phrases, gallery, middle, pairs, unseen
from export.demo.scenes import FIRST_UNSEEN_SEED, PHRASES, Scene


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

    async def segment(self, image: Any, **prompts: Any) -> list[list[Any]]:
        things = self._scene(image).things
        if "points" in prompts:
            for [(x, y)], thing in zip(prompts["points"], things, strict=True):
                assert thing.mask[int(y), int(x)]
        return [[self._mask(thing.mask)] for thing in things]

    async def segment_phrases(self, image: Any, _phrases: list[str], **_options: Any) -> list[Any]:
        return [
            SimpleNamespace(phrase=thing.phrase, mask=self._mask(thing.mask))
            for thing in self._scene(image).things
        ]

    async def recognize_text(self, images: list[Any]) -> list[Any]:
        [image] = images
        words = [
            SimpleNamespace(text=word.text + ("x" if self.wrong else ""), box=word.box)
            for word in self._scene(image).words
        ]
        return [SimpleNamespace(words=lambda: iter(words))]

    async def estimate_gaze(self, image: Any) -> list[Any]:
        return [
            SimpleNamespace(
                box=face.box, yaw=face.yaw_pitch[0] + (0.3 if self.wrong else 0), pitch=face.yaw_pitch[1]
            )
            for face in self._scene(image).faces
        ]


MEASURES = (
    evaluate.detection,
    evaluate.segmentation,
    evaluate.words_to_masks,
    evaluate.reading,
    evaluate.gaze,
)


@pytest.mark.parametrize("measure", MEASURES)
async def test_the_truth_reaches_every_goal(measure: Any) -> None:
    pictures, count = unseen(9), []
    for figure in await measure(Knowing(pictures), pictures, lambda: count.append(1)):
        assert figure.reached
        assert figure.value == pytest.approx(0 if figure.at_most else 1, abs=0.05)
    assert len(count) == len(pictures)


@pytest.mark.parametrize("measure", MEASURES)
async def test_wrong_answers_do_not(measure: Any) -> None:
    pictures = unseen(9)
    figures = await measure(Knowing(pictures, wrong=True), pictures, lambda: None)
    assert not all(figure.reached for figure in figures)
    if measure is evaluate.gaze:
        assert figures[-1].value == pytest.approx(math.degrees(0.3), rel=0.1)
    elif measure is evaluate.reading:
        assert [figure.value for figure in figures] == [1, 0, 1]
    else:
        assert max(figure.value for figure in figures) < 0.05


def test_unseen_scenes_hold_everything_and_have_unseen_seeds() -> None:
    pictures = unseen(12)
    assert all(any(getattr(scene, kind) for scene in pictures) for kind in ("things", "words", "faces"))
    assert {scene.image.shape for scene in pictures} == {(360, 480, 3), (480, 360, 3), (400, 400, 3)}
    assert FIRST_UNSEEN_SEED > 10**8


def test_phrases_asked_are_those_there_and_others() -> None:
    for index, scene in enumerate(unseen(6)):
        phrases = asked_phrases(scene, index)
        assert len(phrases) == len(set(phrases)) == evaluate.PHRASES_ASKED
        assert {thing.phrase for thing in scene.things} <= set(phrases) <= set(PHRASES)


def test_captions_of_a_gallery_say_different_things() -> None:
    pictures, captions = gallery(0)
    assert len(pictures) == len(set(captions)) == GALLERY
    said = [frozenset(caption.replace("a ", "").split(" and ")) for caption in captions]
    assert len(set(said)) == GALLERY
    for scene, phrases in zip(pictures, said, strict=True):
        assert {thing.phrase for thing in scene.things} == phrases


def test_pairs_are_the_best_ones() -> None:
    assert pairs(np.array([[0.9, 0.8], [0.85, 0.0]])) == [(0, 0)]
    assert pairs(np.array([[0.6, 0.9], [0.7, 0.8]])) == [(0, 1), (1, 0)]
    assert pairs(np.zeros((0, 3))) == []


def test_the_middle_of_a_ring_is_on_it() -> None:
    y, x = np.mgrid[:41, :41] - 20
    ring = (np.hypot(x, y) < 18) & (np.hypot(x, y) > 8)
    column, row = middle(ring)
    assert ring[int(row), int(column)]
    assert np.hypot(column - 20, row - 20) == pytest.approx(13, abs=1.5)


def test_angles_are_on_the_sphere() -> None:
    assert angle(np.array([0.0, 0.0]), np.array([math.pi / 2, 0])) == pytest.approx(90)
    assert angle(np.array([0.3, 0.2]), np.array([0.3, 0.2])) == pytest.approx(0, abs=1e-5)
    # Near the zenith, yaw hardly matters.
    assert angle(np.array([0.0, 1.5]), np.array([1.0, 1.5])) < 5


def test_goals() -> None:
    assert Figure("x", 0.9, 0.9).reached
    assert not Figure("x", 0.89, 0.9).reached
    assert Figure("x", 7, 8, at_most=True).reached
    assert not Figure("x", 9, 8, at_most=True).reached

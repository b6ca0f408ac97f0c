"""How true a server's answers are on drawn scenes: figures through the public client, as callers get them."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from export.demo import scenes
from export.demo.scenes import FIRST_UNSEEN_SEED, PHRASES, Plan, Scene
from gateway.models import boxes
from visiongate import AsyncClient, Face

SAME = 0.5
"""Boxes that overlap by this IoU are of one object."""


PHRASES_ASKED = 10
SIZES = ((480, 360), (360, 480), (400, 400))
ONE_SHAPE = Plan(shapes=(1, 1), words=(0, 0), faces=(0, 0), shape_size=(0.35, 0.8))
ONE_SHAPE_OF_MANY_THINGS = Plan(shapes=(1, 1))
TWO_SHAPES = Plan(shapes=(2, 2), words=(0, 0), faces=(0, 0), shape_size=(0.3, 0.5))
GALLERY = 50
"""Images, and captions, of one retrieval."""
# Calls in flight: enough to keep a small server busy.
CONCURRENCY = 4

T = TypeVar("T")
Box = NDArray[np.float32]
Advance = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of the table and what it should reach; `at_most` where less is better."""

    what: str
    value: float
    goal: float
    unit: str = ""
    at_most: bool = False

    @property
    def reached(self) -> bool:
        return self.value <= self.goal if self.at_most else self.value >= self.goal


def unseen(count: int) -> list[Scene]:
    """Scenes of shapes, words and faces that no model was trained on."""
    return [scenes.draw(FIRST_UNSEEN_SEED + index, *SIZES[index % len(SIZES)]) for index in range(count)]


Measure = Callable[[AsyncClient, Sequence[Scene], Advance], Awaitable[list[Figure]]]
"""How well something is done on some scenes."""


async def detection(client: AsyncClient, pictures: Sequence[Scene], advance: Advance) -> list[Figure]:
    """Recall and precision of boxes for ten phrases a scene, most of them of things that are not there."""

    async def ask(index: int) -> tuple[int, int, int]:
        scene = pictures[index]
        found = await client.detect(scene.image, asked_phrases(scene, index))
        right = right_boxes(scene, [(item.phrase, item.box) for item in found])
        return right, len(scene.things), len(found)

    right, wanted, found = np.sum(await _all(ask, len(pictures), advance), axis=0)
    return [
        Figure("Grounding DINO: recall at IoU 0.5", right / wanted, 0.90),
        Figure("Grounding DINO: precision at IoU 0.5", right / max(1, found), 0.90),
    ]


async def segmentation(client: AsyncClient, pictures: Sequence[Scene], advance: Advance) -> list[Figure]:
    """Mean IoU of the masks of a box, and of one point in the middle of what is visible."""

    async def ask(index: int) -> tuple[float, float, int]:
        scene = pictures[index]
        truth = [thing.mask for thing in scene.things]
        if not truth:
            return 0.0, 0.0, 0
        of_boxes, of_points = await asyncio.gather(
            client.segment(scene.image, boxes=[thing.box for thing in scene.things]),
            client.segment(scene.image, points=[[middle(mask)] for mask in truth], multimask=True),
        )
        return (
            sum(mask_iou(masks[0].pixels, mask) for masks, mask in zip(of_boxes, truth, strict=True)),
            sum(mask_iou(masks[0].pixels, mask) for masks, mask in zip(of_points, truth, strict=True)),
            len(truth),
        )

    from_boxes, from_points, count = np.sum(await _all(ask, len(pictures), advance), axis=0)
    return [
        Figure("SAM: mean IoU from a box", from_boxes / count, 0.85),
        Figure("SAM: mean IoU from one point", from_points / count, 0.75),
    ]


async def words_to_masks(client: AsyncClient, pictures: Sequence[Scene], advance: Advance) -> list[Figure]:
    """Mean IoU over all things that are there, 0 where nothing of that name was found."""

    async def ask(index: int) -> tuple[float, int]:
        scene = pictures[index]
        found = await client.segment_phrases(scene.image, asked_phrases(scene, index))
        total = 0.0
        for phrase in {thing.phrase for thing in scene.things}:
            masks = [item.mask.pixels for item in found if item.phrase == phrase and item.mask]
            truth = [thing.mask for thing in scene.things if thing.phrase == phrase]
            overlaps = np.array([[mask_iou(mask, true) for mask in masks] for true in truth])
            total += sum(overlaps[pair] for pair in pairs(overlaps))
        return total, len(scene.things)

    total, count = np.sum(await _all(ask, len(pictures), advance), axis=0)
    return [Figure("words to masks: mean IoU", total / count, 0.80)]


async def classification(client: AsyncClient, count: int, advance: Advance) -> list[Figure]:
    """The share of pictures of one shape whose best of all 30 captions is theirs.

    On a picture of the shape alone, as the model learned; and on whole scenes, where it is small, and words
    and a face are around it.
    """

    async def share(plan: Plan) -> float:
        async def ask(index: int) -> bool | None:
            scene = scenes.draw(FIRST_UNSEEN_SEED + index, 240, 240, plan)
            if not scene.things:  # the shape is hidden
                return None
            [[best]] = await client.classify([scene.image], PHRASES, prompt_template="a {}", top_k=1)
            return best.label == scene.things[0].phrase

        return float(np.mean([right for right in await _all(ask, count, advance) if right is not None]))

    what = "CLIP: zero-shot top-1 of 30"
    return [
        Figure(f"{what}, one large shape alone", await share(ONE_SHAPE), 0.95),
        Figure(f"{what}, one shape in a whole scene", await share(ONE_SHAPE_OF_MANY_THINGS), 0.5),
    ]


async def retrieval(client: AsyncClient, count: int, advance: Advance) -> list[Figure]:
    """The share of pictures whose nearest of 50 different captions, of one or two shapes, is theirs."""

    async def ask(index: int) -> float:
        pictures, captions = gallery(index)
        images = await client.embed_images([scene.image for scene in pictures])
        texts = await client.embed_texts(captions)
        return float(np.mean((images @ texts.T).argmax(1) == np.arange(GALLERY)))

    shares = await _all(ask, math.ceil(count / GALLERY), advance)
    return [Figure("CLIP: image to text, recall@1 among 50", float(np.mean(shares)), 0.90)]


async def reading(client: AsyncClient, pictures: Sequence[Scene], advance: Advance) -> list[Figure]:
    """The share of the words that are found, and that are found and read without a fault."""

    async def ask(index: int) -> tuple[int, int, int, int]:
        scene = pictures[index]
        [page] = await client.recognize_text([scene.image])
        found = list(page.words())
        overlaps = boxes.iou(_stack(word.box for word in scene.words), _stack(word.box for word in found))
        right = 0
        for row, column in pairs(overlaps):
            right += overlaps[row, column] >= SAME and scene.words[row].text == found[column].text
        hits = matches([word.box for word in scene.words], [word.box for word in found])
        return hits, right, len(scene.words), len(found)

    hits, right, wanted, found = np.sum(await _all(ask, len(pictures), advance), axis=0)
    return [
        Figure("docTR: words found", hits / wanted, 0.95),
        Figure("docTR: words read without a fault", right / wanted, 0.95),
        Figure("docTR: of what it found, words", hits / max(1, found), 0.95),
    ]


async def gaze(client: AsyncClient, pictures: Sequence[Scene], advance: Advance) -> list[Figure]:
    """The share of faces found, and the mean angle between where they look and where it says they look."""

    async def ask(index: int) -> tuple[int, int, int, float]:
        scene = pictures[index]
        found: list[Face] = await client.estimate_gaze(scene.image)
        overlaps = boxes.iou(_stack(face.box for face in scene.faces), _stack(face.box for face in found))
        angles = [
            angle(scene.faces[row].yaw_pitch, np.array([found[column].yaw, found[column].pitch]))
            for row, column in pairs(overlaps)
            if overlaps[row, column] >= SAME
        ]
        return len(angles), len(scene.faces), len(found), sum(angles)

    hits, wanted, found, total = np.sum(await _all(ask, len(pictures), advance), axis=0)
    return [
        Figure("faces found", hits / wanted, 0.95),
        Figure("faces: of what it found, faces", hits / max(1, found), 0.95),
        Figure("gaze: mean error", total / max(1, hits), 8, "°", at_most=True),
    ]


async def everything(client: AsyncClient, count: int, advance: Advance) -> list[Figure]:
    """All figures, on `count` scenes each; `advance` is called after every one of `steps(count)` answers."""
    pictures = unseen(count)
    figures = []
    measures: tuple[Measure, ...] = (detection, segmentation, words_to_masks, reading, gaze)
    for measure in measures:
        figures += await measure(client, pictures, advance)
    for draw_and_measure in (classification, retrieval):
        figures += await draw_and_measure(client, count, advance)
    return figures


def steps(count: int) -> int:
    """How many answers `everything` waits for."""
    return 7 * count + math.ceil(count / GALLERY)


def asked_phrases(scene: Scene, seed: int) -> list[str]:
    """Ten phrases: all that are there, and others that are not."""
    random = np.random.default_rng(seed)
    there = list(dict.fromkeys(thing.phrase for thing in scene.things))
    others = [phrase for phrase in PHRASES if phrase not in there]
    absent = random.choice(others, max(0, PHRASES_ASKED - len(there)), replace=False).tolist()
    return [str(phrase) for phrase in random.permutation(there + absent)]


def gallery(index: int) -> tuple[list[Scene], list[str]]:
    """50 pictures of one or two shapes, and their captions, which say different things."""
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


def middle(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """(x, y) of the pixel that is farthest from the mask's edge."""
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return float(column) - 0.5, float(row) - 0.5


def mask_iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 0.0


def angle(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Degrees between two gazes (yaw, pitch), in radians."""
    vectors = [
        np.array([math.cos(pitch) * math.sin(yaw), math.sin(pitch), math.cos(pitch) * math.cos(yaw)])
        for yaw, pitch in (one, other)
    ]
    return math.degrees(math.acos(np.clip(vectors[0] @ vectors[1], -1, 1)))


def right_boxes(scene: Scene, found: Sequence[tuple[str, Box]]) -> int:
    """How many of the scene's things are found under their phrase."""
    return sum(
        matches(
            (thing.box for thing in scene.things if thing.phrase == phrase),
            (box for name, box in found if name == phrase),
        )
        for phrase in PHRASES
    )


def matches(truth: Iterable[Box], found: Iterable[Box]) -> int:
    """How many of the true boxes are found, each by a box of its own."""
    overlaps = boxes.iou(_stack(truth), _stack(found))
    return sum(bool(overlaps[pair] >= SAME) for pair in pairs(overlaps))


def pairs(overlaps: NDArray[np.floating]) -> list[tuple[int, int]]:
    """Rows and columns that belong together: the best overlap first, none twice, none without overlap."""
    left = np.array(overlaps, np.float64)
    chosen = []
    while left.size and left.max() > 0:
        row, column = (int(index) for index in np.unravel_index(int(left.argmax()), left.shape))
        chosen.append((row, column))
        left[row], left[:, column] = 0, 0
    return chosen


def _stack(rows: Iterable[Box]) -> Box:
    return np.array(list(rows), np.float32).reshape(-1, 4)


async def _all(ask: Callable[[int], Awaitable[T]], count: int, advance: Advance) -> list[T]:
    """The answers for 0 to `count` - 1, a few asked at a time."""
    room = asyncio.Semaphore(CONCURRENCY)

    async def one(index: int) -> T:
        async with room:
            answer = await ask(index)
        advance()
        return answer

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(index)) for index in range(count)]
    return [task.result() for task in tasks]

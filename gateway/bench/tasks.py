"""The tasks that are measured, as calls of ready bytes."""

import io
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from gateway.bench.load import Wave
from gateway.bench.photos import groups
from visiongate.operations import Operation, detection, embedding, gaze, segmentation, text

# Words of texts that no cache has seen: all of them in all orders.
_WORDS = ["red", "green", "blue", "yellow", "purple", "circle", "square", "star", "triangle", "cross"]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is asked about. photos: JPEG files. click: a point, as shares of width and height."""

    photos: Sequence[bytes]
    phrases: Sequence[str]
    point: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Task:
    """key: its name on the command line. items: how many a call has. unit: images or texts.

    in_flight: calls at a time.
    """

    key: str
    title: str
    items: int
    unit: str
    in_flight: int
    calls: Sequence[Sequence[Wave]]


def _pixel(subject: Subject, photo: bytes) -> list[float]:
    with Image.open(io.BytesIO(photo)) as picture:
        return [share * side for share, side in zip(subject.point, picture.size, strict=True)]


def _texts(subject: Subject, items: int, count: int) -> list[Operation[Any]]:
    texts = map(" ".join, itertools.permutations(_WORDS, 3))
    return [
        embedding.embed_texts(list(itertools.islice(texts, items))) for _ in range(min(count, 720 // items))
    ]


def _of_photos(
    ask: Callable[[Subject, list[bytes]], Operation[Any]],
) -> Callable[[Subject, int, int], list[Operation[Any]]]:
    return lambda subject, items, count: [
        ask(subject, photos) for photos in groups(subject.photos, items, count)
    ]


# Each with its title, its unit, whether a call takes many, and its operations.
_Ask = Callable[[Subject, int, int], list[Operation[Any]]]
TASKS: dict[str, tuple[str, str, bool, _Ask]] = {
    "embed-images": (
        "embed images",
        "images",
        True,
        _of_photos(lambda _, many: embedding.embed_images(many)),
    ),
    "embed-texts": ("embed texts", "texts", True, _texts),
    "detect": (
        "detect objects",
        "images",
        False,
        _of_photos(lambda subject, one: detection.detect(one[0], subject.phrases)),
    ),
    "click": (
        "segment: a click",
        "images",
        False,
        _of_photos(lambda subject, one: segmentation.segment(one[0], points=[[_pixel(subject, one[0])]])),
    ),
    "words": (
        "segment: words",
        "images",
        False,
        _of_photos(lambda subject, one: segmentation.segment_phrases(one[0], subject.phrases)),
    ),
    "read": ("read text", "images", True, _of_photos(lambda _, many: text.recognize_text(many))),
    "gaze": ("estimate gaze", "images", False, _of_photos(lambda _, one: gaze.estimate_gaze(one[0]))),
}


def tasks(keys: Sequence[str], subject: Subject, items: Sequence[int], in_flight: int) -> list[Task]:
    """Return the tasks of these keys, those that take many items in a call once for each number of them.

    in_flight: items at a time, in at least two calls. There are twice as many calls, so that no two at a time
    ask the same.
    """
    found = []
    for key in keys:
        title, unit, takes_many, ask = TASKS[key]
        for number in items if takes_many else [1]:
            at_a_time = max(2, in_flight // number)
            operations = ask(subject, number, 2 * at_a_time)
            calls = [
                [[(operation.method, operation.request.SerializeToString())]] for operation in operations
            ]
            found.append(Task(key, title, number, unit, at_a_time, calls))
    return found

"""Classes of labels: what each is called, and the phrases by which its objects are found."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SAME_IOU = 0.7
"""Two boxes of one class that overlap more, as intersection over union, are one object with two names."""

Detection = Mapping[str, Any]
"""A detection in the rows of a job: phrase, phrase_index, score, box, and mask where masks were asked for."""


@dataclass(frozen=True, slots=True)
class Classes:
    """names: of the classes. phrases: all that are asked about. class_of: the index of each one's class."""

    names: tuple[str, ...]
    phrases: tuple[str, ...]
    class_of: tuple[int, ...]

    def labels(self, detections: Sequence[Detection]) -> list[dict[str, Any]]:
        """Return the detections of one image, best first, as those of classes.

        phrase becomes the class's name, phrase_index its index. The model drops boxes that overlap only among
        those of one phrase. So a cup that is also a mug is found twice: the better one stays.
        """
        kept: list[dict[str, Any]] = []
        boxes: list[NDArray[np.float64]] = []
        for detection in sorted(detections, key=lambda one: -one["score"]):
            index = self.class_of[detection["phrase_index"]]
            box = np.array([detection["box"][side] for side in ("x_min", "y_min", "x_max", "y_max")])
            is_known = any(
                other["phrase_index"] == index
                and other["by"] != detection["phrase_index"]
                and _iou(box, other_box) > SAME_IOU
                for other, other_box in zip(kept, boxes, strict=True)
            )
            if not is_known:
                kept.append(
                    dict(detection)
                    | {"phrase": self.names[index], "phrase_index": index, "by": detection["phrase_index"]}
                )
                boxes.append(box)
        for label in kept:
            del label["by"]
        return kept


def read_classes(phrases: Iterable[str], definitions: Iterable[str]) -> Classes:
    """Return the classes of phrases, each its own class, and of definitions such as "cup=cup,mug".

    They are numbered in this order. Raises ValueError for a definition that makes no sense.
    """
    members = [(phrase.strip(), [phrase.strip()]) for phrase in phrases]
    for definition in definitions:
        name, equals, words = definition.partition("=")
        members.append((name.strip(), [word.strip() for word in words.split(",")]))
        if not equals or not all([name.strip(), *members[-1][1]]):
            raise ValueError(f'--class {definition!r}: write name=phrase,phrase, such as "cup=cup,mug"')
    if not members:
        raise ValueError('give what to label: --phrase cup, or --class "cup=cup,mug" (any number of each)')
    names = [name for name, _ in members]
    asked = [word for _, words in members for word in words]
    if not all(asked):
        raise ValueError("--phrase is empty: give what the model looks for, such as --phrase cup")
    for what, texts in (("classes are called", names), ("phrases are", asked)):
        twice = [text for index, text in enumerate(texts) if text in texts[:index]]
        if twice:
            raise ValueError(f"two {what} {twice[0]!r}: each is one class")
    class_of = [index for index, (_, words) in enumerate(members) for _ in words]
    return Classes(tuple(names), tuple(asked), tuple(class_of))


def _iou(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    if (sides <= 0).any():
        return 0.0
    common = sides.prod()
    return float(common / ((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - common))

"""Classes of labels: what each is called, and the phrases by which its objects are found."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from visiongate.detections import Detection, Detections

SAME_IOU = 0.7
"""Two boxes of one class that overlap more, as intersection over union, are one object with two names."""


@dataclass(frozen=True, slots=True)
class Classes:
    """names: of the classes. phrases: all that are asked about. class_of: the index of each one's class."""

    names: tuple[str, ...]
    phrases: tuple[str, ...]
    class_of: tuple[int, ...]

    def labels(self, detections: Detections) -> Detections:
        """Return the detections of `phrases` as those of the classes, best first.

        The model drops boxes that overlap only among those of one phrase. So a cup that is also a mug is
        found twice: here the better one stays.
        """
        kept: list[tuple[int, Detection]] = []
        for item in sorted(detections, key=lambda item: -item.score):
            assert item.phrase_index is not None
            index = self.class_of[item.phrase_index]
            if not any(
                other.phrase_index == index
                and by != item.phrase_index
                and _iou(item.box, other.box) > SAME_IOU
                for by, other in kept
            ):
                kept.append((item.phrase_index, replace(item, phrase=self.names[index], phrase_index=index)))
        return Detections(
            [label for _, label in kept],
            self.names,
            detections.info,
            has_masks=any(label.mask is not None for _, label in kept),
        )


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


def _iou(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    if (sides <= 0).any():
        return 0.0
    common = sides.prod()
    return float(common / ((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - common))

"""Answers as `visiongate.draw` takes them. `Detections.drawn` does the same for objects that words name."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from visiongate.draw import Item
from visiongate.operations.embedding import LabelScore
from visiongate.operations.gaze import Face
from visiongate.operations.text import Page

# More would not stay readable on a photo.
MAX_DRAWN_LABELS = 5


def face_items(faces: Sequence[Face]) -> Iterator[Item]:
    """Yield each face's box and landmarks, and an arrow: as long as the face for a look across the photo."""
    for index, face in enumerate(faces):
        centre = (face.box[:2] + face.box[2:]) / 2
        length = (face.box[2:] - face.box[:2]).max()
        yield Item(
            index,
            f"{index}: yaw {math.degrees(face.yaw):+.0f}° pitch {math.degrees(face.pitch):+.0f}°",
            box=face.box,
            points=np.stack(list(face.landmarks.values())) if face.landmarks else None,
            arrow=np.stack([centre, centre + face.direction[:2] * length]),
        )


def word_items(page: Page) -> Iterator[Item]:
    """Yield the words, in a colour for each line."""
    lines = [line for block in page.blocks for line in block]
    for index, line in enumerate(lines):
        for word in line:
            yield Item(index, word.text, polygon=word.quadrilateral)


def label_items(scores: Sequence[LabelScore]) -> Iterator[Item]:
    """Yield the captions of the best labels."""
    for index, score in enumerate(scores[:MAX_DRAWN_LABELS]):
        yield Item(index, f"{score.label} {score.probability:.0%}")

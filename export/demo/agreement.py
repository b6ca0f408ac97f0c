"""How well answers agree with the truth: boxes, masks and directions."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from export.demo.scenes import PHRASES, Scene
from gateway.models import boxes
from gateway.models.gaze import direction

MIN_IOU = 0.5
"""Boxes that overlap by this much or more are of one object."""

Box = NDArray[np.float32]


def pairs(overlaps: NDArray[np.floating]) -> list[tuple[int, int]]:
    """Return the rows and columns that belong together: the best overlap first, none twice.

    Rows and columns without any overlap have no partner.
    """
    left = np.array(overlaps, np.float64)
    chosen = []
    while left.size and left.max() > 0:
        row, column = (int(index) for index in np.unravel_index(int(left.argmax()), left.shape))
        chosen.append((row, column))
        left[row], left[:, column] = 0, 0
    return chosen


def paired_boxes(truth: Iterable[Box], answers: Iterable[Box]) -> list[tuple[int, int, float]]:
    """Return the boxes that belong together: the index among the true ones, that of the answer, their IoU."""
    overlaps = boxes.iou(_stacked(truth), _stacked(answers))
    return [(row, column, float(overlaps[row, column])) for row, column in pairs(overlaps)]


def matches(truth: Iterable[Box], answers: Iterable[Box]) -> int:
    """Return how many of the true boxes are found, each by a box of its own."""
    return sum(iou >= MIN_IOU for _, _, iou in paired_boxes(truth, answers))


def right_boxes(scene: Scene, answers: Sequence[tuple[str, Box]]) -> int:
    """Return how many of the scene's things are found under their phrase."""
    return sum(
        matches(
            (thing.box for thing in scene.things if thing.phrase == phrase),
            (box for name, box in answers if name == phrase),
        )
        for phrase in PHRASES
    )


def mask_iou(mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Return the intersection over union of two masks, 0 if both are empty."""
    union = np.count_nonzero(mask | other)
    return np.count_nonzero(mask & other) / union if union else 0.0


def angles_between(gaze: NDArray[np.floating], other: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the degrees [...] between gazes (yaw, pitch) [...,2], which are in radians."""
    vector, other_vector = (direction(angles.astype(np.float32)) for angles in (gaze, other))
    # Not the arc cosine: near 0 degrees it makes much of rounding.
    sine = np.linalg.norm(np.cross(vector, other_vector), axis=-1)
    cosine = (vector * other_vector).sum(-1)
    degrees: NDArray[np.float32] = np.degrees(np.arctan2(sine, cosine))
    return degrees


def _stacked(rows: Iterable[Box]) -> Box:
    return np.array(list(rows), np.float32).reshape(-1, 4)

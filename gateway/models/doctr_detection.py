"""Where words are: a text probability map to boxes or quadrilaterals.

Agrees with python-doctr's DBPostProcessor, LinkNetPostProcessor and FASTPostProcessor: they differ in numbers
only, which are in `MapThresholds`. Coordinates are parts of the map's sides, 0 to 1.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyclipper
from numpy.typing import NDArray

Map = NDArray[np.float32]
Points = NDArray[np.float64]

OPENING_KERNEL = np.ones((3, 3), np.uint8)
SMALLEST_BLOB = 2


@dataclass(frozen=True, slots=True)
class MapThresholds:
    """How a probability map is read.

    bin_threshold: least probability of a text pixel. box_threshold: least mean probability of a word.
    unclip_ratio: how far the network's shrunken words are grown, in area over circumference.
    min_box_size: least side, in pixels of the map, of a grown word (0: any).
    """

    bin_threshold: float
    box_threshold: float
    unclip_ratio: float
    min_box_size: int


def find_boxes(probability: Map, detection: MapThresholds) -> tuple[Points, Points]:
    """Upright words of a map float32 [H, W]: xyxy float64 [n, 4] and mean probabilities [n]."""
    height, width = probability.shape
    boxes, scores = [], []
    for blob in _blobs(probability, detection.bin_threshold):
        x, y, w, h = cv2.boundingRect(blob)
        # Right and bottom are one pixel beyond the blob, as in docTR.
        score = probability[y : y + h + 1, x : x + w + 1].mean()
        if score < detection.box_threshold:
            continue
        corners = np.array([[x, y], [x, y + h], [x + w, y + h], [x + w, y]])
        grown = _grow(corners, w * h, 2 * (w + h), detection.unclip_ratio)
        if grown is None:
            continue
        low, high = grown.min(0), grown.max(0) + 1
        if (high - low < detection.min_box_size).any():
            continue
        boxes.append([low[0] / width, low[1] / height, high[0] / width, high[1] / height])
        scores.append(float(score))
    return np.clip(np.array(boxes).reshape(-1, 4), 0, 1), np.clip(np.array(scores), 0, 1)


def find_quadrilaterals(probability: Map, detection: MapThresholds) -> tuple[Points, Points]:
    """Words at any angle: float64 [n, 4, 2], each from its top-left corner clockwise, and scores [n]."""
    height, width = probability.shape
    quadrilaterals, scores = [], []
    for blob in _blobs(probability, detection.bin_threshold):
        score = _mean_inside(probability, blob)
        if score < detection.box_threshold:
            continue
        rectangle = cv2.minAreaRect(blob)
        # OpenCV measures between pixel centres: a pixel more each way.
        w, h = rectangle[1][0] + 1, rectangle[1][1] + 1
        length = 2 * (rectangle[1][0] + rectangle[1][1]) + 2
        grown = _grow(cv2.boxPoints(rectangle), w * h, length, detection.unclip_ratio)
        if grown is None:
            continue
        corners = order_points(np.asarray(cv2.boxPoints(cv2.minAreaRect(grown)), np.float32))
        if np.linalg.norm(corners[2] - corners[0]) < detection.min_box_size:
            continue
        quadrilaterals.append(corners / np.array([width, height], np.float32))
        scores.append(score)
    return (
        np.clip(np.array(quadrilaterals, np.float64).reshape(-1, 4, 2), 0, 1),
        np.clip(np.array(scores), 0, 1),
    )


def remove_padding(points: Points, size: tuple[int, int]) -> Points:
    """From parts of the square canvas to parts of the image in its middle, of `size` (height, width).

    points [..., 2] x, y; clipped to the image. Agrees with docTR's `_remove_padding`, which ignores that the
    resized image is a whole number of pixels.
    """
    height, width = size
    unpadded = points.copy()
    if height > width:
        unpadded[..., 0] = (points[..., 0] - 0.5) * height / width + 0.5
    elif width > height:
        unpadded[..., 1] = (points[..., 1] - 0.5) * width / height + 0.5
    return np.clip(unpadded, 0, 1)


def order_points(points: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Corners [4, 2] of a convex shape clockwise from the top-left one (least x + y); y goes down."""
    offsets = points - points.mean(0)
    clockwise = points[np.argsort(np.arctan2(offsets[:, 1], offsets[:, 0]))]
    return np.roll(clockwise, -int(clockwise.sum(1).argmin()), axis=0)


def _blobs(probability: Map, threshold: float) -> list[NDArray[np.int32]]:
    """Contours [n, 2] of connected text pixels, without specks."""
    bitmap = cv2.morphologyEx((probability >= threshold).astype(np.uint8), cv2.MORPH_OPEN, OPENING_KERNEL)
    contours, _ = cv2.findContours(bitmap, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    blobs = [contour[:, 0].astype(np.int32, copy=False) for contour in contours]
    return [blob for blob in blobs if (np.ptp(blob, axis=0) >= SMALLEST_BLOB).all()]


def _mean_inside(probability: Map, blob: NDArray[np.int32]) -> float:
    low, high = blob.min(0), blob.max(0) + 1
    inside = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    cv2.fillPoly(inside, [blob - low], 1)
    values = probability[low[1] : high[1], low[0] : high[0]][inside.astype(np.bool_)]
    return float(values.mean()) if values.size else 0.0


def _grow(corners: NDArray[np.generic], area: float, length: float, ratio: float) -> NDArray[np.int32] | None:
    """The outline [n, 2] of a convex shape grown on all sides by area / length * ratio, in whole pixels."""
    offset = pyclipper.PyclipperOffset()
    offset.AddPath(corners, pyclipper.JT_ROUND, pyclipper.ET_CLOSEDPOLYGON)
    outlines = offset.Execute(area * ratio / length)
    return np.array(max(outlines, key=len), np.int32) if outlines else None

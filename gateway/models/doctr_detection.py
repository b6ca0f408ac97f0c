"""docTR's text detection: a text probability map to boxes or quadrilaterals of words.

Agrees with python-doctr's DBPostProcessor, LinkNetPostProcessor and FASTPostProcessor. These differ only in
the numbers that are in `MapThresholds`. Coordinates are fractions of the map's sides, 0 to 1.
"""

from dataclasses import dataclass
from typing import Any, Self

import cv2
import numpy as np
import pyclipper
from numpy.typing import NDArray

from gateway.models.parameters import ParameterReader

Map = NDArray[np.float32]
Points = NDArray[np.float64]

OPENING_KERNEL = np.ones((3, 3), np.uint8)
# Width and height of a blob between its outermost pixel centres, in pixels of the map.
MIN_BLOB_EXTENT = 2


@dataclass(frozen=True, slots=True)
class MapThresholds:
    """The numbers by which a probability map is read.

    bin_threshold: lowest probability of a text pixel. box_threshold: lowest mean probability of a word.
    unclip_ratio: how far the network's shrunken words are grown, as a multiple of area over circumference.
    min_box_size: shortest side of a grown word, in pixels of the map (0: any); shortest diagonal if rotated.
    """

    bin_threshold: float
    box_threshold: float
    unclip_ratio: float
    min_box_size: int

    @classmethod
    def from_parameters(cls, reader: ParameterReader) -> Self:
        """Read the parameters of these names; raise ValueError that names what is missing or wrong."""
        return cls(
            bin_threshold=reader.fraction("bin_threshold"),
            box_threshold=reader.fraction("box_threshold"),
            unclip_ratio=reader.positive_number("unclip_ratio"),
            min_box_size=reader.whole_number("min_box_size", 0),
        )


def find_boxes(probability: Map, thresholds: MapThresholds) -> tuple[Points, Points]:
    """Find upright words in a map float32 [H, W]: xyxy float64 [n, 4] and mean probabilities [n]."""
    height, width = probability.shape
    boxes, scores = [], []
    for blob in _blobs(probability, thresholds.bin_threshold):
        x, y, w, h = cv2.boundingRect(blob)
        # The box ends one pixel beyond the blob on the right and at the bottom, as in docTR.
        score = probability[y : y + h + 1, x : x + w + 1].mean()
        if score < thresholds.box_threshold:
            continue
        corners = np.array([[x, y], [x, y + h], [x + w, y + h], [x + w, y]])
        grown = _grow(corners, w * h, 2 * (w + h), thresholds.unclip_ratio)
        if grown is None:
            continue
        low, high = grown.min(0), grown.max(0) + 1
        if (high - low < thresholds.min_box_size).any():
            continue
        boxes.append([low[0] / width, low[1] / height, high[0] / width, high[1] / height])
        scores.append(float(score))
    return np.clip(np.array(boxes).reshape(-1, 4), 0, 1), np.clip(np.array(scores), 0, 1)


def find_quadrilaterals(probability: Map, thresholds: MapThresholds) -> tuple[Points, Points]:
    """Find words at any angle in a map float32 [H, W].

    Returns corners float64 [n, 4, 2], clockwise from the top-left one, and mean probabilities [n].
    """
    height, width = probability.shape
    quadrilaterals, scores = [], []
    for blob in _blobs(probability, thresholds.bin_threshold):
        score = _mean_inside(probability, blob)
        if score < thresholds.box_threshold:
            continue
        rectangle = cv2.minAreaRect(blob)
        # OpenCV measures between pixel centres: a side is one pixel longer. docTR adds this pixel to both
        # sides, but only two pixels to the circumference.
        w, h = rectangle[1][0] + 1, rectangle[1][1] + 1
        circumference = 2 * (rectangle[1][0] + rectangle[1][1]) + 2
        grown = _grow(cv2.boxPoints(rectangle), w * h, circumference, thresholds.unclip_ratio)
        if grown is None:
            continue
        corners = order_points(np.asarray(cv2.boxPoints(cv2.minAreaRect(grown)), np.float32))
        if np.linalg.norm(corners[2] - corners[0]) < thresholds.min_box_size:
            continue
        quadrilaterals.append(corners / np.array([width, height], np.float32))
        scores.append(score)
    return (
        np.clip(np.array(quadrilaterals, np.float64).reshape(-1, 4, 2), 0, 1),
        np.clip(np.array(scores), 0, 1),
    )


def remove_padding(points: Points, size: tuple[int, int]) -> Points:
    """Convert fractions of the square canvas to fractions of the image in its middle.

    points: [..., 2] of (x, y); the result is clipped to the image. size: (height, width) of the image. Agrees
    with docTR's `_remove_padding`, which ignores that the resized image is a whole number of pixels.
    """
    height, width = size
    unpadded = points.copy()
    if height > width:
        unpadded[..., 0] = (points[..., 0] - 0.5) * height / width + 0.5
    elif width > height:
        unpadded[..., 1] = (points[..., 1] - 0.5) * width / height + 0.5
    return np.clip(unpadded, 0, 1)


def order_points(points: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Sort corners [4, 2] of a convex shape clockwise from the top-left one (lowest x + y); y goes down."""
    offsets = points - points.mean(0)
    clockwise = points[np.argsort(np.arctan2(offsets[:, 1], offsets[:, 0]))]
    return np.roll(clockwise, -int(clockwise.sum(1).argmin()), axis=0)


def _blobs(probability: Map, threshold: float) -> list[NDArray[np.int32]]:
    """Return the contours [n, 2] of connected text pixels, without specks."""
    bitmap = cv2.morphologyEx((probability >= threshold).astype(np.uint8), cv2.MORPH_OPEN, OPENING_KERNEL)
    contours, _ = cv2.findContours(bitmap, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    blobs = [contour[:, 0].astype(np.int32, copy=False) for contour in contours]
    return [blob for blob in blobs if (np.ptp(blob, axis=0) >= MIN_BLOB_EXTENT).all()]


def _mean_inside(probability: Map, blob: NDArray[np.int32]) -> float:
    low, high = blob.min(0), blob.max(0) + 1
    inside = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    cv2.fillPoly(inside, [blob - low], 1)
    values = probability[low[1] : high[1], low[0] : high[0]][inside.astype(np.bool_)]
    return float(values.mean()) if values.size else 0.0


def _grow(
    corners: NDArray[np.generic], area: float, circumference: float, ratio: float
) -> NDArray[np.int32] | None:
    """Grow a convex shape on all sides by area / circumference * ratio pixels.

    Returns its outline [n, 2] in whole pixels, or None if there is none.
    """
    offset = pyclipper.PyclipperOffset()
    offset.AddPath(corners, pyclipper.JT_ROUND, pyclipper.ET_CLOSEDPOLYGON)
    outlines = offset.Execute(area * ratio / circumference)
    return np.array(max(outlines, key=len), np.int32) if outlines else None

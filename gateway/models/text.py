"""What all text models have in common: places on a page, crops of them, and what they say."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from gateway.models.doctr_detection import MapThresholds

Pixels = NDArray[np.uint8]
Points = NDArray[np.float64]

# Longest side, in pixels, of an image that OpenCV can warp, and of one that it can warp into.
MAX_WARP_SIDE = 32766


@dataclass(frozen=True, eq=False, slots=True)
class Places:
    """Where the words or lines of a page are, as fractions of its sides (0 to 1).

    points: float64 [n, 4] xyxy, or [n, 4, 2] corners clockwise from the top-left one. scores: float64 [n].
    on_side: bool [n], whether the text runs from the top to the bottom.
    """

    points: Points
    scores: NDArray[np.float64]
    on_side: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, part: slice | NDArray[np.bool_] | NDArray[np.intp]) -> "Places":
        return Places(self.points[part], self.scores[part], self.on_side[part])

    def quadrilaterals(self, size: tuple[int, int]) -> NDArray[np.float32]:
        """Return corners float32 [n, 4, 2] in pixels of a page of `size` (height, width).

        They go clockwise. The first is where the text begins: at the top left, or at the top right of text
        that runs from the top to the bottom.
        """
        points = self.points
        corners = points if points.ndim == 3 else points[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]
        corners = np.where(self.on_side[:, None, None], np.roll(corners, -1, axis=1), corners)
        return (corners * [size[1], size[0]]).astype(np.float32)

    def parts(self, starts: NDArray[np.float64], ends: NDArray[np.float64]) -> "Places":
        """Return the parts of places between two fractions [n] each of the way along their text."""
        if not starts.any() and (ends == 1).all():
            return self
        turns = self.on_side[:, None, None]
        corners = np.where(turns, np.roll(self.points, -1, axis=1), self.points)
        top, bottom = corners[:, [0, 1]], corners[:, [3, 2]]
        edges = np.stack([starts, ends], axis=1)[:, :, None]
        top, bottom = (side[:, :1] * (1 - edges) + side[:, 1:] * edges for side in (top, bottom))
        parts = np.concatenate([top, bottom[:, ::-1]], axis=1)
        return Places(np.where(turns, np.roll(parts, 1, axis=1), parts), self.scores, self.on_side)


@dataclass(frozen=True, eq=False, slots=True)
class Crops:
    """The recognition network's inputs for some places.

    pixels: uint8 [n, h, w, 3], the crops of each place from left to right. counts: how many crops each place
    has; 0 if it has no pixels at all. extents: for each place, what its model needs to join its crops.
    """

    pixels: Pixels
    counts: tuple[int, ...]
    extents: tuple[float, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Steps:
    """The recognition network's answer: the best class at each step along each crop.

    classes: int32 [n, L], indices of the vocabulary, whose length stands for the blank or the word's end.
    probabilities: float32 [n, L].
    """

    classes: NDArray[np.int32]
    probabilities: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Span:
    """A word that was read in a place: its characters, and their confidence from 0 to 1.

    start, end: which part of the place it covers, as fractions from where the text begins.
    """

    text: str
    confidence: float
    start: float = 0.0
    end: float = 1.0

    def quadrilateral(self, place: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return its part [4, 2] of the corners [4, 2] of its place."""
        ends = np.array([self.start, self.end], np.float32)[:, None]
        top = place[0] * (1 - ends) + place[1] * ends
        bottom = place[3] * (1 - ends) + place[2] * ends
        return np.stack([top[0], top[1], bottom[1], bottom[0]])


class TextSpec(Protocol):
    """The constants of one variant, and what follows from them."""

    @property
    def thresholds(self) -> MapThresholds:
        """Those for a request that has none."""

    @property
    def min_confidence(self) -> float:
        """Least confidence of what is read at once, for a request that has none."""

    @property
    def vocabulary(self) -> str:
        """The recognition network's characters in the order of its classes."""

    @property
    def by_columns(self) -> bool:
        """Whether a page is read column by column, for a request that does not say."""

    @property
    def input_size(self) -> int:
        """Longest side, in pixels, that images are resized to."""

    def preprocess(self, image: Pixels) -> Pixels:
        """Return the detection network's input [h, w, 3] for uint8 [H, W, 3]."""

    def find(
        self,
        probability: NDArray[np.float32],
        size: tuple[int, int],
        thresholds: MapThresholds,
        *,
        rotated: bool,
    ) -> Places:
        """Find the text on a page of `size` (height, width), in no particular order.

        probability: float32 [h, w], the detection network's answer.
        """

    def arrange(
        self, places: Places, size: tuple[int, int], *, lines: bool, blocks: bool, by_columns: bool
    ) -> list[list[list[int]]]:
        """Return blocks of lines of indices of places, in reading order."""

    def batches(self, places: Places, size: tuple[int, int], limit: int) -> list[NDArray[np.intp]]:
        """Return the indices of places that are cut and read together, all of whose crops have one size.

        limit: the most crops of the smallest size that may be sent to the recognition network at once.
        """

    def crop_limit(self, crops: Crops, limit: int) -> int:
        """Return how many of these crops may be sent at once, if `limit` of the smallest size may."""

    def batch_bytes(self, limit: int) -> int:
        """Return the bytes of the crops that are sent at once, if `limit` of the smallest size may be."""

    def cut(self, image: Pixels, places: Places) -> Crops:
        """Cut places out of uint8 [H, W, 3]."""

    def read(self, crops: Crops, steps: Sequence[Steps], min_confidence: float) -> list[list[Span]]:
        """Return the words of each place. There are none if it has no pixels, or nothing that is certain.

        steps: in as many batches as the crops were sent in.
        """


def first_steps(classes: NDArray[np.int32], blank: int) -> NDArray[np.bool_]:
    """Return which steps [..., L] of CTC's best path write a character: repeated ones count once."""
    kept: NDArray[np.bool_] = classes != blank
    kept[..., 1:] &= classes[..., 1:] != classes[..., :-1]
    return kept


def warp(
    image: Pixels,
    source: NDArray[Any],
    target: Any,
    size: tuple[int, int],
    *,
    interpolation: int = cv2.INTER_LINEAR,
    border: int = cv2.BORDER_CONSTANT,
) -> Pixels:
    """Return uint8 [h, w, 3] of `size` (width, height), with the four points `source` moved to `target`.

    interpolation and border are OpenCV's constants.
    """
    if max(image.shape) > MAX_WARP_SIDE:
        # Warp only the part that is needed. Not always, because this rounds a little differently.
        low = np.maximum(np.floor(source.min(0)).astype(np.intp) - 2, 0)
        high = np.ceil(source.max(0)).astype(np.intp) + 3
        image = np.ascontiguousarray(image[low[1] : high[1], low[0] : high[0]])
        source = source - low
    transform = cv2.getPerspectiveTransform(source.astype(np.float32), np.array(target, np.float32))
    warped = cv2.warpPerspective(image, transform, size, flags=interpolation, borderMode=border)
    return np.asarray(warped, np.uint8)

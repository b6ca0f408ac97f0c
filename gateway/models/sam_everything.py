"""Segment Anything without prompts: a grid of points, and which of the masks they lead to are kept.

Agrees with transformers' `mask-generation` pipeline on SamImageProcessorPil (generate_crop_boxes,
filter_masks, post_process_for_mask_generation), and for small regions with the automatic mask generator of
segment-anything. The model is asked for three masks a point. Where the reference fails (grids of different
sizes, crops of no pixels), this does what it meant.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

from gateway.models import boxes, masks
from gateway.models.sam import FOREGROUND, Prompt, SamSpec

# A mask whose box comes this near to the edge of its crop goes on outside of it, in pixels.
CROP_EDGE = 20


@dataclass(frozen=True, slots=True)
class GridOptions:
    """What is asked, and what is kept; proto's SegmentEverythingRequest says what each means."""

    points_per_side: int = 32
    crop_layers: int = 0
    crop_overlap_ratio: float = 512 / 1500
    crop_points_downscale: int = 1
    min_predicted_iou: float = 0.88
    min_stability_score: float = 0.95
    stability_offset: float = 1.0
    nms_iou_threshold: float = 0.7
    min_mask_area: int = 0
    min_region_area: int = 0
    max_masks: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """A part of the image: xyxy in its pixels, and a grid of points float64 [n,2], (x, y) within the crop."""

    box: tuple[int, int, int, int]
    points: NDArray[np.float64]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        left, top, right, bottom = self.box
        return bottom - top, right - left

    def prompts(self) -> list[Prompt]:
        labels = np.array([FOREGROUND], np.int32)
        return [Prompt(point[None], labels) for point in self.points]


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A mask that passed the filters.

    rle: its pixels within `frame`, xyxy in pixels of the image. box: float32 [4] xyxy in pixels of the image,
    through the centres of its outermost pixels (max edges inclusive): boxes are suppressed so by the
    reference. area: pixels. point: (x, y) in pixels of the image.
    """

    rle: masks.Rle
    frame: tuple[int, int, int, int]
    box: NDArray[np.float32]
    area: int
    predicted_iou: float
    stability_score: float
    point: tuple[float, float]

    def pixels(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """The mask bool [H,W] of the image, whose `size` is (height, width)."""
        left, top, right, bottom = self.frame
        whole = np.zeros(size, np.bool_)
        whole[top:bottom, left:right] = masks.decode_rle(self.rle)
        return whole


def crops(size: tuple[int, int], choice: GridOptions) -> Iterator[Crop]:
    """The whole image of `size` (height, width), then layer after layer of smaller, overlapping crops."""
    height, width = size
    for layer in range(choice.crop_layers + 1):
        grid = _grid(max(1, choice.points_per_side // choice.crop_points_downscale**layer))
        a_side = 2**layer
        overlap = int(choice.crop_overlap_ratio * min(size) * (2 / a_side)) if layer else 0
        crop_width, crop_height = (
            math.ceil((overlap * (a_side - 1) + side) / a_side) for side in (width, height)
        )
        for column, row in product(range(a_side), repeat=2):
            left, top = (crop_width - overlap) * column, (crop_height - overlap) * row
            right, bottom = min(left + crop_width, width), min(top + crop_height, height)
            if left < right and top < bottom:
                yield Crop((left, top, right, bottom), grid * (right - left, bottom - top))


def candidates(
    sam: SamSpec,
    logits: NDArray[np.float32],
    predicted_ious: NDArray[np.float32],
    point: int,
    crop: Crop,
    size: tuple[int, int],
    choice: GridOptions,
) -> list[Candidate]:
    """Those masks of one point of a crop that are to be kept, so far.

    logits: float32 [K,m,m]. predicted_ious: float32 [K]. point: its index in the crop. size: (height, width)
    of the image. The filter on predicted IoU comes first: what it drops costs nothing. All others look at
    masks of full size, as the reference's do; there is one of them at a time.
    """
    found = (
        _candidate(sam, logits[k], predicted_ious[k], point, crop, size, choice)
        for k in range(len(predicted_ious))
        if choice.min_predicted_iou <= 0 or predicted_ious[k] > choice.min_predicted_iou
    )
    return [candidate for candidate in found if candidate is not None]


def suppress(found: Sequence[Candidate], iou_threshold: float) -> list[Candidate]:
    """Non-maximum suppression of boxes by predicted IoU: those kept, best first."""
    scores = np.array([candidate.predicted_iou for candidate in found], np.float32)
    return [found[index] for index in _nms(found, scores, iou_threshold)]


def clean(candidate: Candidate, size: tuple[int, int], choice: GridOptions) -> tuple[Candidate | None, bool]:
    """The mask without small holes and detached parts, and whether that changed it.

    Regions of fewer than `min_region_area` pixels, neighbours by a side or a corner. Of a mask of small
    parts only the largest stays. None where less than `min_mask_area` is left.
    """
    pixels, filled = _without_small(candidate.pixels(size), choice.min_region_area, holes=True)
    pixels, removed = _without_small(pixels, choice.min_region_area, holes=False)
    if not filled and not removed:
        return candidate, False
    area = masks.area(pixels)
    if area < choice.min_mask_area:
        return None, True
    height, width = size
    whole = (0, 0, width, height)
    return replace(
        candidate, rle=masks.encode_rle(pixels), frame=whole, box=_box(pixels, (0, 0)), area=area
    ), True


def suppress_cleaned(
    cleaned: Sequence[tuple[Candidate | None, bool]], iou_threshold: float
) -> list[Candidate]:
    """Suppress what cleaning made alike, changed masks by unchanged ones; best predicted IoU first."""
    left = [(candidate, changed) for candidate, changed in cleaned if candidate is not None]
    found = [candidate for candidate, _ in left]
    scores = np.array([not changed for _, changed in left], np.float32)
    return [found[index] for index in sorted(_nms(found, scores, iou_threshold))]


def _grid(a_side: int) -> NDArray[np.float64]:
    """Centres of a_side x a_side equal cells of the unit square, row by row: [n,2] of (x, y)."""
    offset = 1 / (2 * a_side)
    places = np.linspace(offset, 1 - offset, a_side)
    return np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 2)


def _candidate(
    sam: SamSpec,
    low_res_logits: NDArray[np.float32],
    predicted_iou: np.float32,
    point: int,
    crop: Crop,
    size: tuple[int, int],
    choice: GridOptions,
) -> Candidate | None:
    if low_res_logits.max() <= 0:  # interpolation stays between its inputs
        return None
    logits = sam.resize_logits(low_res_logits, sam.valid_size(crop.size), crop.size)
    stability = _stability(logits, choice.stability_offset)
    # Not so where it is NaN, of a mask without any pixel even at the lower threshold.
    if choice.min_stability_score > 0 and not stability > choice.min_stability_score:
        return None
    pixels = logits > 0
    area = masks.area(pixels)
    if area < max(1, choice.min_mask_area):
        return None
    left, top, _, _ = crop.box
    box = _box(pixels, (left, top))
    if _is_cut(box, crop.box, size):
        return None
    x, y = crop.points[point]
    return Candidate(
        masks.encode_rle(pixels),
        crop.box,
        box,
        area,
        float(predicted_iou),
        float(stability),
        (float(x) + left, float(y) + top),
    )


def _stability(logits: NDArray[np.float32], offset: float) -> np.float32:
    # The mask at the higher threshold lies within that at the lower: their IoU is a ratio of areas.
    inner, outer = (np.count_nonzero(logits > np.float32(threshold)) for threshold in (offset, -offset))
    return np.float32(inner) / np.float32(outer) if outer else np.float32(np.nan)


def _box(pixels: NDArray[np.bool_], origin: tuple[int, int]) -> NDArray[np.float32]:
    x_min, y_min, x_max, y_max = masks.bounding_box(pixels)
    x, y = origin
    return np.array([x + x_min, y + y_min, x + x_max - 1, y + y_max - 1], np.float32)


def _is_cut(box: NDArray[np.float32], crop: tuple[int, int, int, int], size: tuple[int, int]) -> bool:
    """Whether the box reaches an edge of the crop that is not also one of the image."""
    height, width = size
    near_crop = np.abs(box - np.array(crop)) <= CROP_EDGE
    near_image = np.abs(box - np.array([0, 0, width, height])) <= CROP_EDGE
    return bool((near_crop & ~near_image).any())


def _nms(found: Sequence[Candidate], scores: NDArray[np.float32], iou_threshold: float) -> list[int]:
    if not found:
        return []
    places = np.stack([candidate.box for candidate in found])
    return [int(index) for index in boxes.nms(places, scores, iou_threshold)]


def _without_small(
    pixels: NDArray[np.bool_], min_area: int, *, holes: bool
) -> tuple[NDArray[np.bool_], bool]:
    looked_at = ~pixels if holes else pixels
    _, labels, stats, _ = cv2.connectedComponentsWithStats(looked_at.view(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]  # label 0 is what was not looked at
    small = areas < min_area
    if not small.any():
        return pixels, False
    if not holes and small.all():
        small[np.argmax(areas)] = False
    is_small = np.concatenate([[False], small])[labels]
    return (pixels | is_small if holes else pixels & ~is_small), True

"""Segment Anything's automatic mask generator: point grids over an image and its crops, and filters of masks.

Agrees with transformers' `mask-generation` pipeline on SamImageProcessorPil (generate_crop_boxes,
filter_masks, post_process_for_mask_generation), and for small regions with the automatic mask generator of
segment-anything. The model gives three masks for each point. transformers fails on point grids of different
sizes and on crops without pixels; this module does what was meant.
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
from gateway.models.upsampling import Upsampled

MAX_CANDIDATES = 10_000
"""Most masks that suppression looks at, those of highest predicted IoU. It takes time by their square."""

# In pixels. A mask whose box is this close to an edge of its crop is taken to be cut off there.
CROP_EDGE_TOLERANCE = 20


@dataclass(frozen=True, slots=True)
class GridOptions:
    """The options of the automatic mask generator. SegmentEverythingRequest in proto/ explains each.

    segment-anything calls them, in this order: points_per_side, crop_n_layers, crop_overlap_ratio,
    crop_n_points_downscale_factor, pred_iou_thresh, stability_score_thresh, stability_score_offset,
    box_nms_thresh. Its min_mask_region_area is min_region_area here. It has neither min_mask_area nor
    max_masks.
    """

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
    """A part of the image: xyxy in its pixels, and a point grid float64 [n,2] of (x, y) within the crop."""

    box: tuple[int, int, int, int]
    points: NDArray[np.float64]

    @property
    def size(self) -> tuple[int, int]:
        """The (height, width) in pixels."""
        left, top, right, bottom = self.box
        return bottom - top, right - left

    def prompts(self) -> list[Prompt]:
        """Return one prompt for each point of the grid."""
        labels = np.array([FOREGROUND], np.int32)
        return [Prompt(point[None], labels) for point in self.points]


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A mask that passed the filters.

    rle: the mask's pixels within `frame`. frame: xyxy in pixels of the image. box: float32 [4] xyxy in pixels
    of the image, through the centres of the outermost pixels (max edges inclusive), because the reference
    suppresses such boxes. area: in pixels. point: the prompt (x, y), in pixels of the image.
    """

    rle: masks.Rle
    frame: tuple[int, int, int, int]
    box: NDArray[np.float32]
    area: int
    predicted_iou: float
    stability_score: float
    point: tuple[float, float]

    def placed(self, size: tuple[int, int]) -> masks.PlacedMask:
        """Return the mask on an image of `size` (height, width)."""
        left, top, _, _ = self.frame
        return masks.PlacedMask(masks.decode_rle(self.rle), (left, top), size)


def crops(size: tuple[int, int], options: GridOptions) -> Iterator[Crop]:
    """Yield the whole image of `size` (height, width), then layers of smaller, overlapping crops."""
    height, width = size
    for layer in range(options.crop_layers + 1):
        grid = _point_grid(max(1, options.points_per_side // options.crop_points_downscale**layer))
        crops_per_side = 2**layer
        overlap = int(options.crop_overlap_ratio * min(size) * (2 / crops_per_side)) if layer else 0
        crop_width, crop_height = (
            math.ceil((overlap * (crops_per_side - 1) + side) / crops_per_side) for side in (width, height)
        )
        for column, row in product(range(crops_per_side), repeat=2):
            left, top = (crop_width - overlap) * column, (crop_height - overlap) * row
            right, bottom = min(left + crop_width, width), min(top + crop_height, height)
            if left < right and top < bottom:
                yield Crop((left, top, right, bottom), grid * (right - left, bottom - top))


def candidates(
    spec: SamSpec,
    logits: NDArray[np.float32],
    predicted_ious: NDArray[np.float32],
    point: int,
    crop: Crop,
    size: tuple[int, int],
    options: GridOptions,
) -> list[Candidate]:
    """Return those masks of one point of a crop that pass the filters.

    logits: float32 [K,m,m]. predicted_ious: float32 [K]. point: index of the point in the crop's grid. size:
    (height, width) of the image. The filter by predicted IoU comes first, so that the masks that it drops
    cost nothing. All other filters are about masks of full size, as the reference's are.
    """
    filtered = (
        _candidate(spec, logits[k], predicted_ious[k], point, crop, size, options)
        for k in range(len(predicted_ious))
        if options.min_predicted_iou <= 0 or predicted_ious[k] > options.min_predicted_iou
    )
    return [candidate for candidate in filtered if candidate is not None]


def suppress(candidates: Sequence[Candidate], iou_threshold: float) -> list[Candidate]:
    """Return the candidates that non-maximum suppression by predicted IoU keeps, best first.

    Of more than MAX_CANDIDATES only the best are looked at. The reference looks at all.
    """
    scores = np.array([candidate.predicted_iou for candidate in candidates], np.float32)
    if len(candidates) > MAX_CANDIDATES:
        best = np.sort(np.argsort(-scores, kind="stable")[:MAX_CANDIDATES])
        candidates, scores = [candidates[index] for index in best], scores[best]
    return [candidates[index] for index in _nms(candidates, scores, iou_threshold)]


def clean(candidate: Candidate, size: tuple[int, int], options: GridOptions) -> tuple[Candidate | None, bool]:
    """Remove small holes and small detached parts from a mask; return the mask, and whether it changed.

    Small regions have fewer than `min_region_area` pixels. Pixels of a region touch by a side or a corner. If
    all parts of a mask are small, only the largest stays. The mask is None if it changed and fewer than
    `min_mask_area` pixels are left.
    """
    pixels, filled = _remove_small_regions(
        candidate.placed(size).whole(), options.min_region_area, holes=True
    )
    pixels, removed = _remove_small_regions(pixels, options.min_region_area, holes=False)
    if not filled and not removed:
        return candidate, False
    area = masks.area(pixels)
    if area < options.min_mask_area:
        return None, True
    height, width = size
    whole = masks.PlacedMask.of(pixels)
    cleaned = replace(
        candidate,
        rle=masks.encode_rle(pixels),
        frame=(0, 0, width, height),
        box=_box(whole, (0, 0)),
        area=area,
    )
    return cleaned, True


def suppress_cleaned(
    cleaned: Sequence[tuple[Candidate | None, bool]], iou_threshold: float
) -> list[Candidate]:
    """Suppress masks that cleaning made nearly equal; an unchanged mask wins over a changed one.

    `cleaned` holds the results of `clean`, best predicted IoU first. The kept masks stay in this order.
    """
    remaining = [(candidate, changed) for candidate, changed in cleaned if candidate is not None]
    candidates = [candidate for candidate, _ in remaining]
    scores = np.array([not changed for _, changed in remaining], np.float32)
    return [candidates[index] for index in sorted(_nms(candidates, scores, iou_threshold))]


def _point_grid(points_per_side: int) -> NDArray[np.float64]:
    """Return the centres of equal cells of the unit square, row by row: [n,2] of (x, y)."""
    offset = 1 / (2 * points_per_side)
    coordinates = np.linspace(offset, 1 - offset, points_per_side)
    return np.stack(np.meshgrid(coordinates, coordinates), axis=-1).reshape(-1, 2)


def _candidate(
    spec: SamSpec,
    low_res_logits: NDArray[np.float32],
    predicted_iou: np.float32,
    point: int,
    crop: Crop,
    size: tuple[int, int],
    options: GridOptions,
) -> Candidate | None:
    if low_res_logits.max() <= 0:  # interpolation stays between its inputs
        return None
    logits = spec.upsampled(
        low_res_logits, spec.valid_size(crop.size), crop.size, least=-options.stability_offset
    )
    if logits is None:
        return None
    stability = _stability_score(logits, options.stability_offset)
    # Written with `not`, so that NaN fails: the score of a mask without pixels even at the lower threshold.
    if options.min_stability_score > 0 and not stability > options.min_stability_score:
        return None
    mask = logits.over(0)
    area = masks.area(mask.pixels)
    if area < max(1, options.min_mask_area):
        return None
    left, top, _, _ = crop.box
    box = _box(mask, (left, top))
    if _is_cut(box, crop.box, size):
        return None
    x, y = crop.points[point]
    part_left, part_top = left + mask.origin[0], top + mask.origin[1]
    height, width = mask.pixels.shape
    return Candidate(
        masks.encode_rle(mask.pixels),
        (part_left, part_top, part_left + width, part_top + height),
        box,
        area,
        float(predicted_iou),
        float(stability),
        (float(x) + left, float(y) + top),
    )


def _stability_score(logits: Upsampled, offset: float) -> np.float32:
    # The mask at the higher threshold lies within the mask at the lower one: their IoU is the ratio of areas.
    inner, outer = (logits.count_over(threshold) for threshold in (offset, -offset))
    return np.float32(inner) / np.float32(outer) if outer else np.float32(np.nan)


def _box(mask: masks.PlacedMask, origin: tuple[int, int]) -> NDArray[np.float32]:
    x_min, y_min, x_max, y_max = masks.part_bounding_box(mask)
    x, y = origin
    return np.array([x + x_min, y + y_min, x + x_max - 1, y + y_max - 1], np.float32)


def _is_cut(box: NDArray[np.float32], crop: tuple[int, int, int, int], size: tuple[int, int]) -> bool:
    """Return whether the box reaches an edge of the crop that is not also an edge of the image."""
    height, width = size
    near_crop = np.abs(box - np.array(crop)) <= CROP_EDGE_TOLERANCE
    near_image = np.abs(box - np.array([0, 0, width, height])) <= CROP_EDGE_TOLERANCE
    return bool((near_crop & ~near_image).any())


def _nms(candidates: Sequence[Candidate], scores: NDArray[np.float32], iou_threshold: float) -> list[int]:
    if not candidates:
        return []
    stacked = np.stack([candidate.box for candidate in candidates])
    return [int(index) for index in boxes.nms(stacked, scores, iou_threshold)]


def _remove_small_regions(
    pixels: NDArray[np.bool_], min_area: int, *, holes: bool
) -> tuple[NDArray[np.bool_], bool]:
    """Fill small holes or remove small parts, as SAM's `remove_small_regions`, and return whether any was."""
    foreground = ~pixels if holes else pixels
    _, labels, stats, _ = cv2.connectedComponentsWithStats(foreground.view(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]  # label 0 is the background
    small = areas < min_area
    if not small.any():
        return pixels, False
    if not holes and small.all():
        small[np.argmax(areas)] = False
    is_small = np.concatenate([[False], small])[labels]
    return (pixels | is_small if holes else pixels & ~is_small), True

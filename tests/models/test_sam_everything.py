"""Against transformers' automatic mask generation, fed the same logits."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage import measure
from transformers import SamImageProcessorPil

from gateway.models import masks, sam_everything
from gateway.models.sam import SamSpec
from gateway.models.sam_everything import Candidate, Crop, GridOptions

SAM = SamSpec(image_size=128, mask_size=32)
PROCESSOR: Any = SamImageProcessorPil(
    size={"longest_edge": 128}, pad_size={"height": 128, "width": 128}, do_rescale=False, do_normalize=False
)
KEEP_ALL = GridOptions(min_predicted_iou=0, min_stability_score=0, nms_iou_threshold=1)


def blobs(seed: int, count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits [count,3,32,32] of round objects here and there, and their predicted IoU [count,3]."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:32, :32]
    place = rng.uniform(0, 32, (2, count, 3, 1, 1))
    radius = rng.uniform(1, 14, (count, 3, 1, 1))
    distance = np.hypot(rows - place[0], (columns - place[1]) * rng.uniform(0.5, 2, (count, 3, 1, 1)))
    steepness = rng.uniform(0.5, 8, (count, 3, 1, 1))
    logits = (radius - distance) * steepness + rng.normal(0, 0.5, distance.shape)
    return logits.astype(np.float32), rng.uniform(0.5, 1, (count, 3)).astype(np.float32)


@pytest.mark.parametrize("size", [(90, 128), (301, 200), (37, 53), (1200, 1800)])
@pytest.mark.parametrize(("layers", "overlap"), [(0, 512 / 1500), (1, 512 / 1500), (2, 0.1), (3, 0.5)])
def test_crops_and_their_grids_equal_the_reference(
    size: tuple[int, int], layers: int, overlap: float
) -> None:
    image = np.zeros((*size, 3), np.uint8)
    boxes, points, images, _ = PROCESSOR.generate_crop_boxes(image, 128, layers, overlap, 5)
    found = list(sam_everything.crops(size, GridOptions(5, layers, overlap)))
    assert [crop.box for crop in found] == [tuple(map(int, box)) for box in boxes]
    for index, crop in enumerate(found):
        assert crop.size == images[index].shape[1:]
        (group,) = SAM.group_prompts(crop.prompts(), crop.size, max_prompts=25)
        np.testing.assert_array_equal(group.points[:, 0], points[0, :, index].numpy().astype(np.float32))
        # As the model pads a lone point.
        assert group.labels.tolist() == [[1, -1]] * 25
        assert not group.points[:, 1].any()


def test_grids_of_smaller_crops_may_be_coarser() -> None:
    """The reference fails here: it stacks the grids."""
    counts = [len(crop.points) for crop in sam_everything.crops((300, 400), GridOptions(9, 3, 0.3, 3))]
    assert counts == [81] + [9] * 4 + [1] * 16 + [1] * 64


def test_crops_of_nothing_are_left_out() -> None:
    for size in [(1, 1), (1, 300), (2, 3)]:
        found = list(sam_everything.crops(size, GridOptions(2, 3)))
        assert found[0].box == (0, 0, size[1], size[0])
        assert all(min(crop.size) > 0 for crop in found)


def reference(
    logits: NDArray[np.float32],
    ious: NDArray[np.float32],
    crops: Sequence[Crop],
    size: Any,
    choice: GridOptions,
) -> tuple[list[NDArray[np.bool_]], NDArray[np.float32], NDArray[np.float32]]:
    """Masks, predicted IoU and boxes by the reference's own filters; logits [crops, points, 3, m, m]."""
    kept: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
    for index, crop in enumerate(crops):
        (large,) = PROCESSOR.post_process_masks(
            [torch.from_numpy(logits[index])], [crop.size], [SAM.valid_size(crop.size)], binarize=False
        )
        found = PROCESSOR.filter_masks(
            large,
            torch.from_numpy(ious[index]),
            size,
            torch.tensor(crop.box).float(),
            choice.min_predicted_iou,
            choice.min_stability_score,
            0,
            choice.stability_offset,
        )
        kept[0].extend(found[0])
        kept[1].append(found[1])
        kept[2].append(found[2])
    found, scores, _, boxes = PROCESSOR.post_process_for_mask_generation(
        kept[0], torch.cat(kept[1]), torch.cat(kept[2]), choice.nms_iou_threshold
    )
    return found, scores.numpy(), boxes.numpy()


def ours(
    logits: NDArray[np.float32],
    ious: NDArray[np.float32],
    crops: Sequence[Crop],
    size: Any,
    choice: GridOptions,
) -> list[Candidate]:
    found = [
        candidate
        for index, crop in enumerate(crops)
        for point in range(logits.shape[1])
        for candidate in sam_everything.candidates(
            SAM, logits[index, point], ious[index, point], point, crop, size, choice
        )
    ]
    return sam_everything.suppress(found, choice.nms_iou_threshold)


@pytest.mark.parametrize("size", [(120, 160), (200, 97), (64, 64)])
@pytest.mark.parametrize(
    "choice",
    [
        GridOptions(4),
        GridOptions(4, min_predicted_iou=0.6, min_stability_score=0.5, nms_iou_threshold=0.4),
        GridOptions(4, min_predicted_iou=0.7, min_stability_score=0.8, stability_offset=0.25),
        GridOptions(3, crop_layers=1, min_predicted_iou=0.55, min_stability_score=0.3),
        GridOptions(2, crop_layers=2, min_predicted_iou=0, min_stability_score=0.2, nms_iou_threshold=0.9),
        GridOptions(2, crop_layers=1, min_predicted_iou=0.5, min_stability_score=1),
    ],
)
def test_kept_masks_equal_the_reference(size: tuple[int, int], choice: GridOptions) -> None:
    crops = list(sam_everything.crops(size, choice))
    count = choice.points_per_side**2
    made = [blobs(index, count) for index in range(len(crops))]
    logits, ious = np.stack([one for one, _ in made]), np.stack([one for _, one in made])
    expected, scores, boxes = reference(logits, ious, crops, size, choice)
    found = ours(logits, ious, crops, size, choice)
    assert len(found) == len(expected)
    assert bool(found) == (choice.min_stability_score < 1)
    np.testing.assert_array_equal([item.predicted_iou for item in found], scores)
    for item, mask, box in zip(found, expected, boxes, strict=True):
        pixels = item.placed(size).whole()
        np.testing.assert_array_equal(pixels, mask)
        np.testing.assert_array_equal(item.box, box)
        assert item.area == mask.sum() > 0


def test_what_is_said_of_a_mask() -> None:
    size = (100, 128)
    crop = list(sam_everything.crops(size, GridOptions(2, crop_layers=1)))[4]
    logits, ious = blobs(7, 4)
    (large,) = PROCESSOR.post_process_masks(
        [torch.from_numpy(logits)], [crop.size], [SAM.valid_size(crop.size)], binarize=False
    )
    values = large.numpy()
    stability = (values > 0.5).sum((2, 3)) / (values > -0.5).sum((2, 3))
    choice = replace(KEEP_ALL, stability_offset=0.5)
    for point in range(4):
        found = sam_everything.candidates(SAM, logits[point], ious[point], point, crop, size, choice)
        for item in found:
            k = int(np.flatnonzero(ious[point] == np.float32(item.predicted_iou))[0])
            assert item.stability_score == pytest.approx(stability[point, k], abs=1e-6)
            # The grid's quarters, in the frame of the image.
            left, top, right, bottom = crop.box
            x = left + (0.25, 0.75)[point % 2] * (right - left)
            y = top + (0.25, 0.75)[point // 2] * (bottom - top)
            assert item.point == pytest.approx((x, y))


def test_empty_and_small_masks_are_dropped() -> None:
    (crop,) = sam_everything.crops((64, 64), GridOptions(1))
    logits = np.full((3, 32, 32), -5, np.float32)
    logits[1, 10, 10] = 5
    logits[2, 4:20, 4:20] = 5
    ious = np.ones(3, np.float32)

    def areas(choice: GridOptions) -> list[int]:
        found = sam_everything.candidates(SAM, logits, ious, 0, crop, (64, 64), choice)
        return [item.area for item in found]

    small, large = areas(KEEP_ALL)
    assert areas(replace(KEEP_ALL, min_mask_area=small)) == [small, large]
    assert areas(replace(KEEP_ALL, min_mask_area=small + 1)) == [large]


def test_nothing_is_nothing() -> None:
    assert sam_everything.suppress([], 0.5) == []
    assert sam_everything.suppress_cleaned([], 0.5) == []


def candidate(pixels: NDArray[np.bool_], predicted_iou: float = 0.9) -> Candidate:
    height, width = pixels.shape
    x_min, y_min, x_max, y_max = masks.bounding_box(pixels)
    box = np.array([x_min, y_min, x_max - 1, y_max - 1], np.float32)
    rle = masks.encode_rle(pixels)
    return Candidate(rle, (0, 0, width, height), box, masks.area(pixels), predicted_iou, 1.0, (0.0, 0.0))


def by_flood(pixels: NDArray[np.bool_], min_area: int) -> NDArray[np.bool_]:
    """What cleaning means, said part by part."""

    def parts(looked_at: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
        labels = measure.label(looked_at, connectivity=2)
        return [labels == index for index in range(1, labels.max() + 1)]

    result = pixels.copy()
    for part in parts(~pixels):
        if part.sum() < min_area:
            result |= part
    islands = parts(result)
    large = [part for part in islands if part.sum() >= min_area]
    if not large:
        large = [max(islands, key=lambda part: int(part.sum()))] if islands else []
    return np.logical_or.reduce(large) if large else result


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), min_area=st.integers(1, 60), grain=st.sampled_from([0.6, 1, 2]))
def test_small_regions(seed: int, min_area: int, grain: float) -> None:
    rng = np.random.default_rng(seed)
    size = (int(rng.integers(5, 50)), int(rng.integers(5, 50)))
    pixels = cv2.GaussianBlur(rng.normal(size=size), (0, 0), grain) > 0
    if not pixels.any():
        return
    cleaned, changed = sam_everything.clean(
        candidate(pixels), size, replace(KEEP_ALL, min_region_area=min_area)
    )
    expected = by_flood(pixels, min_area)
    assert cleaned is not None
    np.testing.assert_array_equal(cleaned.placed(size).whole(), expected)
    assert cleaned.area == expected.sum()
    rows, columns = np.nonzero(expected)
    assert cleaned.box.tolist() == [columns.min(), rows.min(), columns.max(), rows.max()]
    assert changed or (pixels == expected).all()


def test_cleaned_masks_that_became_alike_are_one() -> None:
    square = np.zeros((40, 40), bool)
    square[5:30, 5:30] = True
    holed, dotted = square.copy(), square.copy()
    holed[10, 10] = False
    dotted[39, 39] = True
    other = np.zeros((40, 40), bool)
    other[33:39, 2:9] = True
    found = [candidate(holed, 0.99), candidate(other, 0.95), candidate(square, 0.9), candidate(dotted, 0.8)]
    choice = replace(KEEP_ALL, min_region_area=5)
    cleaned = [sam_everything.clean(item, (40, 40), choice) for item in found]
    assert [changed for _, changed in cleaned] == [True, False, False, True]
    left = sam_everything.suppress_cleaned(cleaned, 0.7)
    # An unchanged mask goes before better ones that were mended; the order is that of predicted IoU.
    assert [item.predicted_iou for item in left] == [0.95, 0.9]


def test_what_cleaning_leaves_too_small_is_dropped() -> None:
    parts = np.zeros((30, 30), bool)
    parts[2:6, 2:6] = parts[20:24, 20:24] = True
    choice = replace(KEEP_ALL, min_region_area=17, min_mask_area=17)
    assert sam_everything.clean(candidate(parts), (30, 30), choice) == (None, True)

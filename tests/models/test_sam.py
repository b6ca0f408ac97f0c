from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import Sam2ImageProcessor, Sam2Processor, SamImageProcessorPil, SamProcessor

from gateway.models.sam import Prompt, SamSpec

SAM = SamSpec(image_size=1024, mask_size=256)
SMALL = SamSpec(image_size=128, mask_size=32)
SAM2 = SamSpec(image_size=128, mask_size=32, stretches=True, pads_boxes=True)
Noise = Callable[[int, int], NDArray[np.uint8]]
Photo = Callable[[str], NDArray[np.uint8]]
SIZES = [(37, 53), (53, 37), (1, 1), (1, 255), (256, 1), (128, 128), (127, 128), (129, 500), (5, 256)]


def reference_processor(sam: SamSpec) -> Any:
    side = sam.image_size
    return SamImageProcessorPil(
        size={"longest_edge": side},
        pad_size={"height": side, "width": side},
        do_rescale=False,
        do_normalize=False,
    )


def assert_preprocess_equals_reference(sam: SamSpec, image: NDArray[np.uint8]) -> None:
    canvas, valid_size = sam.preprocess(image)
    expected = reference_processor(sam)(image, input_data_format="channels_last", return_tensors="np")
    assert valid_size == tuple(expected["reshaped_input_sizes"][0])
    assert canvas.dtype == np.uint8
    np.testing.assert_array_equal(canvas, expected["pixel_values"][0].transpose(1, 2, 0))


@pytest.mark.parametrize("name", ["truck.jpg", "skimage_chelsea.png", "cat_dog.jpeg"])
def test_photos_are_prepared_as_the_reference_does(photo: Photo, name: str) -> None:
    assert_preprocess_equals_reference(SAM, photo(name))


@pytest.mark.parametrize("size", SIZES)
def test_odd_sizes_are_prepared_as_the_reference_does(noise: Noise, size: tuple[int, int]) -> None:
    assert_preprocess_equals_reference(SMALL, noise(*size))


def test_sliver_keeps_one_pixel(noise: Noise) -> None:
    canvas, valid_size = SMALL.preprocess(noise(1, 5000))
    assert valid_size == (1, 128)
    assert canvas[0].any()
    assert not canvas[1:].any()
    assert SMALL.preprocess(noise(5000, 1))[1] == (128, 1)


def test_points_and_boxes_are_scaled_as_the_reference_does() -> None:
    rng = np.random.default_rng(0)
    image = np.zeros((401, 599, 3), dtype=np.uint8)
    points = rng.uniform(0, 401, (3, 2)).astype(np.float32)
    box = np.array([10.3, 20.7, 300.1, 222.2], dtype=np.float32)
    processor: Any = SamProcessor
    expected = processor(reference_processor(SAM))(
        image,
        input_points=[[points.tolist()]],
        input_labels=[[[1, 0, 1]]],
        input_boxes=[[box.tolist()]],
        return_tensors="pt",
    )
    labels = np.array([1, 0, 1])
    both, points_only = SAM.group_prompts(
        [Prompt(points, labels, box), Prompt(points, labels)], (401, 599), max_prompts=8
    )
    scaled_points = expected["input_points"].numpy().astype(np.float32)[0, 0]
    corners = expected["input_boxes"].numpy().astype(np.float32).reshape(2, 2)
    np.testing.assert_array_equal(both.points[0], np.concatenate([scaled_points, corners]))
    assert both.labels.tolist() == [[1, 0, 1, 2, 3]]
    np.testing.assert_array_equal(points_only.points[0], [*scaled_points, [0, 0]])
    assert points_only.labels.tolist() == [[1, 0, 1, -1]]
    assert both.points.dtype == np.float32
    assert both.labels.dtype == np.int32


def point(x: float, y: float) -> Prompt:
    return Prompt(np.array([[x, y]], dtype=np.float32), np.array([1]))


def box(*corners: float) -> Prompt:
    return Prompt(box=np.array(corners, dtype=np.float32))


def test_prompts_that_cannot_share_a_call_are_parted() -> None:
    mask = np.full((32, 32), 2.0, dtype=np.float32)
    two_points = Prompt(np.ones((2, 2), dtype=np.float32), np.array([1, 0]))
    masked = Prompt(np.ones((1, 2), dtype=np.float32), np.array([1]), mask_logits=mask)
    alone = Prompt(mask_logits=mask)
    # A point with its padding and a box with its two corners are both two long, so they go together.
    prompts = [point(1, 1), two_points, box(0, 0, 64, 64), masked, point(2, 2), alone, point(3, 3)]
    groups = SMALL.group_prompts(prompts, (64, 64), max_prompts=3)
    assert [group.indices for group in groups] == [(0, 2, 4), (6,), (1,), (3,), (5,)]
    mixed = groups[0]
    np.testing.assert_array_equal(mixed.points, [[[2, 2], [0, 0]], [[0, 0], [128, 128]], [[4, 4], [0, 0]]])
    assert mixed.labels.tolist() == [[1, -1], [2, 3], [1, -1]]
    assert mixed.mask_input.shape == (1, 32, 32)
    assert not mixed.mask_input.any()
    assert mixed.has_mask_input.tolist() == [False]
    with_mask = groups[3]
    np.testing.assert_array_equal(with_mask.mask_input, mask[None])
    assert with_mask.has_mask_input.tolist() == [True]
    assert groups[4].labels.tolist() == [[-1]]
    assert SMALL.group_prompts([], (64, 64), max_prompts=3) == []


def test_masks_stay_with_their_prompts() -> None:
    prompts = [Prompt(mask_logits=np.full((32, 32), value, dtype=np.float32)) for value in (1, 2, 3)]
    first, second = SMALL.group_prompts(prompts, (64, 64), max_prompts=2)
    assert first.mask_input[:, 0, 0].tolist() == [1, 2]
    assert second.mask_input[:, 0, 0].tolist() == [3]
    assert first.has_mask_input.tolist() == [True, True]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt(), "no point, box or mask"),
        (Prompt(np.ones((2, 2), np.float32), np.array([1])), "there are 2 points, but 1 labels"),
        (Prompt(np.ones((1, 2), np.float32), np.array([2])), "label must be"),
        (point(np.nan, 0), "points must be finite"),
        (Prompt(np.ones((2, 3), np.float32), np.array([1, 1])), "points must be finite"),
        (box(5, 0, 4, 9), "min at most max"),
        (box(0, 0, np.inf, 9), "a box must be finite"),
        (Prompt(mask_logits=np.zeros((256, 256), np.float32)), "must be 32x32"),
        (Prompt(mask_logits=np.full((32, 32), np.nan, np.float32)), "finite"),
    ],
)
def test_prompts_that_make_no_sense_are_refused(prompt: Prompt, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^Prompt 1: .*{message}"):
        SMALL.group_prompts([point(1, 1), prompt], (64, 64), max_prompts=8)


def smooth_logits(sam: SamSpec, grain: float) -> NDArray[np.float32]:
    rng = np.random.default_rng(5)
    logits: NDArray[Any] = rng.normal(size=(sam.mask_size, sam.mask_size))
    if grain:
        logits = cv2.GaussianBlur(logits, (0, 0), grain)
    scaled: NDArray[np.float32] = (logits / logits.std() * 10).astype(np.float32)
    return scaled


def reference_logits(sam: SamSpec, logits: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    (upscaled,) = reference_processor(sam).post_process_masks(
        [torch.from_numpy(logits)[None, None]],
        original_sizes=[size],
        reshaped_input_sizes=[sam.valid_size(size)],
        binarize=False,
    )
    result: NDArray[np.float32] = upscaled[0, 0].numpy()
    return result


def assert_mask_equals_reference(
    sam: SamSpec, logits: NDArray[np.float32], size: tuple[int, int], threshold: float = 0.0
) -> None:
    expected = reference_logits(sam, logits, size)
    mask = sam.postprocess_mask(logits, sam.valid_size(size), size, threshold=threshold).whole()
    assert mask.dtype == np.bool_
    assert mask.shape == size
    wrong = mask != (expected > threshold)
    assert wrong.sum() <= 1e-5 * wrong.size
    # float32 rounding only: the reference places its samples by float32 coordinates.
    assert (np.abs(expected[wrong] - threshold) < 1e-5 * np.abs(logits).max()).all()


@pytest.mark.parametrize("grain", [0, 2, 12])
@pytest.mark.parametrize("size", [(1200, 1800), (451, 300), (97, 2000)])
def test_masks_equal_the_reference(size: tuple[int, int], grain: float) -> None:
    assert_mask_equals_reference(SAM, smooth_logits(SAM, grain), size)


@pytest.mark.parametrize("size", SIZES)
def test_masks_of_odd_sizes_equal_the_reference(size: tuple[int, int]) -> None:
    assert_mask_equals_reference(SMALL, smooth_logits(SMALL, 2), size)


@pytest.mark.parametrize("threshold", [-1.0, 1.0])
def test_masks_at_other_thresholds(threshold: float) -> None:
    assert_mask_equals_reference(SMALL, smooth_logits(SMALL, 2), (200, 300), threshold)


def test_empty_full_and_padding_only_masks() -> None:
    size, valid_size = (64, 128), SMALL.valid_size((64, 128))
    assert not SMALL.postprocess_mask(np.zeros((32, 32), np.float32), valid_size, size).whole().any()
    assert SMALL.postprocess_mask(np.ones((32, 32), np.float32), valid_size, size).whole().all()
    padding = np.full((32, 32), -1, np.float32)
    padding[18:] = 5
    assert not SMALL.postprocess_mask(padding, valid_size, size).whole().any()


SAM2_PROCESSOR: Any = Sam2Processor(
    Sam2ImageProcessor(size={"height": 128, "width": 128}, do_rescale=False, do_normalize=False)
)


@pytest.mark.parametrize("name", ["truck.jpg", "cat_dog.jpeg", "skimage_astronaut.png"])
def test_sam2_photos_are_within_a_grey_level_of_the_reference(photo: Photo, name: str) -> None:
    """Its resize is torchvision's; the reference has no Pillow one."""
    canvas, valid_size = SAM2.preprocess(photo(name))
    pixels = torch.from_numpy(photo(name).transpose(2, 0, 1).copy())
    expected = SAM2_PROCESSOR.image_processor(pixels, return_tensors="pt").pixel_values[0].numpy()
    assert valid_size == (128, 128)
    difference = np.abs(canvas.transpose(2, 0, 1).astype(int) - expected)
    assert difference.max() <= 1


@pytest.mark.parametrize("size", SIZES)
def test_sam2_stretches_any_size(noise: Noise, size: tuple[int, int]) -> None:
    canvas, valid_size = SAM2.preprocess(noise(*size))
    assert (canvas.shape, valid_size) == ((128, 128, 3), (128, 128))


def test_sam2_points_and_boxes_are_scaled_as_the_reference_does() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 401, (3, 2)).astype(np.float32)
    box = np.array([10.3, 20.7, 300.1, 222.2], dtype=np.float32)
    expected = SAM2_PROCESSOR(
        original_sizes=[[401, 599]],
        input_points=[[points.tolist()]],
        input_labels=[[[1, 0, 1]]],
        input_boxes=[[box.tolist()]],
        return_tensors="pt",
    )
    labels = np.array([1, 0, 1])
    both, points_only, box_only = SAM2.group_prompts(
        [Prompt(points, labels, box), Prompt(points, labels), Prompt(box=box)], (401, 599), max_prompts=8
    )
    scaled_points = expected["input_points"].numpy()[0, 0]
    corners = expected["input_boxes"].numpy().reshape(2, 2)
    # The reference scales in float32.
    np.testing.assert_allclose(both.points[0], [*scaled_points, *corners, [0, 0]], rtol=3e-7)
    np.testing.assert_allclose(points_only.points[0], [*scaled_points, [0, 0]], rtol=3e-7)
    np.testing.assert_allclose(box_only.points[0], [*corners, [0, 0]], rtol=3e-7)
    assert both.labels.tolist() == [[1, 0, 1, 2, 3, -1]]
    assert points_only.labels.tolist() == [[1, 0, 1, -1]]
    assert box_only.labels.tolist() == [[2, 3, -1]]


@pytest.mark.parametrize("size", [*SIZES, (301, 200), (1200, 1800)])
@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_sam2_masks_equal_the_reference(size: tuple[int, int], threshold: float) -> None:
    logits = smooth_logits(SAM2, 2)
    (upscaled,) = SAM2_PROCESSOR.post_process_masks(
        [torch.from_numpy(logits)[None, None]], [size], binarize=False
    )
    expected = upscaled[0, 0].numpy()
    mask = SAM2.postprocess_mask(logits, SAM2.valid_size(size), size, threshold=threshold).whole()
    wrong = mask != (expected > threshold)
    assert wrong.sum() <= 1e-5 * wrong.size
    assert (np.abs(expected[wrong] - threshold) < 1e-5 * np.abs(logits).max()).all()


def test_parameters(tmp_path: Path) -> None:
    sizes = {"image_size": "1024", "mask_size": "256"}
    sam1 = sizes | {"fit": "longest", "padding_point": "without_box"}
    sam2 = sizes | {"fit": "stretch", "padding_point": "always"}
    assert SamSpec.from_parameters(sizes, tmp_path) == SAM
    assert SamSpec.from_parameters(sam1, tmp_path) == SAM
    assert SamSpec.from_parameters(sam2, tmp_path) == SamSpec(1024, 256, stretches=True, pads_boxes=True)

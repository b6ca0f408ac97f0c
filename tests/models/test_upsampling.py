"""Masks of which only the outline is interpolated, against those of logits that all are."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from export.demo.serving import REPOSITORY
from gateway.models import masks, sam_everything
from gateway.models.sam import SamSpec
from gateway.models.sam_everything import GridOptions

Logits = NDArray[np.float32]
SPECS = [
    SamSpec(image_size, mask_size, stretches=stretches)
    for image_size, mask_size in ((128, 32), (64, 32), (32, 32), (96, 24))
    for stretches in (False, True)
]
side = st.one_of(st.integers(1, 40), st.integers(1, 400))


def round_objects(rng: np.random.Generator, cells: int, count: int) -> NDArray[Any]:
    rows, columns = np.mgrid[:cells, :cells]
    far = np.full((cells, cells), -np.inf)
    for _ in range(count):
        y, x = rng.uniform(-2, cells + 2, 2)
        distance = np.hypot(rows - y, (columns - x) * rng.uniform(0.5, 2))
        far = np.maximum(far, (rng.uniform(0.3, cells / 3) - distance) * rng.uniform(0.3, 5))
    return far


def make_logits(seed: int, cells: int, kind: str) -> Logits:
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(cells, cells))
    made: NDArray[Any]
    match kind:
        case "noise":
            made = noise * 10
        case "ties":
            made = np.round(noise)
        case "clouds":
            made = cv2.GaussianBlur(noise, (0, 0), float(rng.uniform(0.5, 6))) * 20 - rng.uniform(0, 8)
        case _:
            made = round_objects(rng, cells, int(rng.integers(1, 4))) + noise * rng.choice([0, 0.1])
    return made.astype(np.float32)


def assert_over(logits: Logits, found: NDArray[Any], everything: Logits, threshold: float) -> None:
    wrong = found != (everything > threshold)
    if cv2.ipp.useIPP():
        assert not wrong.any()
    # Elsewhere OpenCV rounds at other places.
    assert (np.abs(everything[wrong] - threshold) <= 1e-5 * np.abs(logits).max()).all()


@settings(max_examples=150, deadline=None)
@given(
    spec=st.sampled_from(SPECS),
    size=st.tuples(side, side),
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["noise", "ties", "clouds", "objects", "objects"]),
    threshold=st.sampled_from([0.0, 0.0, 1.0, -1.0, 0.25]),
)
def test_masks_and_counts_are_those_of_all_logits(
    spec: SamSpec, size: tuple[int, int], seed: int, kind: str, threshold: float
) -> None:
    logits = make_logits(seed, spec.mask_size, kind)
    valid_size = spec.valid_size(size)
    everything = spec.resize_logits(logits, valid_size, size)
    mask = spec.postprocess_mask(logits, valid_size, size, threshold=threshold).whole()
    if logits.max() <= threshold:
        assert not mask.any()
        return
    assert_over(logits, mask, everything, threshold)
    upsampled = spec.upsampled(logits, valid_size, size, least=threshold)
    for higher in (threshold, threshold + 1):
        if upsampled is None:
            assert not (everything > higher).any()
        else:
            assert upsampled.count_over(higher) == masks.area(upsampled.over(higher).pixels)


def test_a_small_object_has_a_small_part() -> None:
    for spec in (SamSpec(1024, 256), SamSpec(1024, 256, stretches=True)):
        logits = np.full((256, 256), -5, np.float32)
        logits[100:110, 20:40] = 5
        size = (3000, 4000)
        placed = spec.postprocess_mask(logits, spec.valid_size(size), size)
        everything = spec.resize_logits(logits, spec.valid_size(size), size)
        assert placed.pixels.size < 2 * masks.area(placed.pixels)
        assert_over(logits, placed.whole(), everything, 0)


def test_of_noise_everything_is_interpolated() -> None:
    spec, size = SamSpec(1024, 256), (600, 800)
    logits = np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32)
    placed = spec.postprocess_mask(logits, spec.valid_size(size), size)
    assert placed.is_whole
    np.testing.assert_array_equal(placed.pixels, spec.resize_logits(logits, spec.valid_size(size), size) > 0)


@pytest.mark.parametrize("name", ["truck.jpg"])
def test_masks_of_photos_are_those_of_all_logits(
    photo: Callable[[str], NDArray[np.uint8]], name: str
) -> None:
    encoder, decoder = (
        onnxruntime.InferenceSession(REPOSITORY / model / "1" / "model.onnx")
        for model in ("sam_encoder", "sam_decoder")
    )
    pixels = photo(name)
    size = (pixels.shape[0], pixels.shape[1])
    sides = encoder.get_inputs()[0].shape[1]
    spec = SamSpec(sides, decoder.get_inputs()[3].shape[2])
    canvas, valid_size = spec.preprocess(pixels)
    (embedding,) = encoder.run(None, {"image": canvas[None], "valid_size": np.array([valid_size], np.int32)})
    (crop,) = sam_everything.crops(size, GridOptions(4))
    (group,) = spec.group_prompts(crop.prompts(), size, max_prompts=16)
    inputs = (embedding, *(value[None] for value in (group.points, group.labels)))
    inputs += (group.mask_input[None], group.has_mask_input[None])
    names = [tensor.name for tensor in decoder.get_inputs()]
    (multimasks,) = decoder.run(["multimasks"], dict(zip(names, inputs, strict=True)))
    parts = 0
    for logits in multimasks.reshape(-1, spec.mask_size, spec.mask_size):
        placed = spec.postprocess_mask(logits, valid_size, size)
        assert_over(logits, placed.whole(), spec.resize_logits(logits, valid_size, size), 0)
        parts += not placed.is_whole
    assert parts > 10

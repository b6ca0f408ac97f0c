from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from doctr.models.recognition.crnn.pytorch import CTCPostProcessor
from doctr.models.recognition.parseq.pytorch import PARSeqPostProcessor
from doctr.models.recognition.predictor._utils import remap_preds, split_crops
from doctr.models.recognition.utils import merge_strings
from doctr.models.recognition.vitstr.pytorch import ViTSTRPostProcessor
from doctr.utils.geometry import extract_crops, extract_rcrops
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gateway.models.doctr_recognition import (
    DECODERS,
    MAX_CROP_RATIO,
    PIECE_OVERLAP,
    PIECE_RATIO,
    cut_boxes,
    cut_quadrilaterals,
    merge,
    merge_texts,
    split,
)
from gateway.models.text import Span, Steps

Photo = Callable[[str], NDArray[np.uint8]]
Noise = Callable[[int, int], NDArray[np.uint8]]
VOCABULARY = 'abcdefghij"\\é'


def test_boxes_are_cut_as_in_doctr(photo: Photo) -> None:
    image = photo("groceries.jpg")
    low = np.random.default_rng(1).uniform(0, 1, (50, 2))
    boxes = np.clip(np.c_[low, low + np.random.default_rng(2).uniform(0, 0.3, (50, 2))], 0, 1)
    boxes[:3] = [[0, 0, 1, 1], [1, 1, 1, 1], [0.5, 0.5, 0.5, 0.5]]
    for actual, expected in zip(cut_boxes(image, boxes), extract_crops(image, boxes), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_quadrilaterals_are_cut_as_in_doctr(photo: Photo) -> None:
    image = photo("groceries.jpg")
    random = np.random.default_rng(1)
    corners = np.array(
        [
            cv2.boxPoints(
                (tuple(random.uniform(0, 1200, 2)), tuple(random.uniform(2, 400, 2)), random.uniform(0, 90))
            )
            for _ in range(60)
        ]
    )
    quadrilaterals = np.clip(corners / [1800, 1200], 0, 1).astype(np.float64)
    # docTR fails where all corners are one above the other.
    quadrilaterals = quadrilaterals[np.ptp(quadrilaterals[..., 0], axis=1) > 0]
    expected = extract_rcrops(image, quadrilaterals, assume_horizontal=True)
    for actual, crop in zip(cut_quadrilaterals(image, quadrilaterals), expected, strict=True):
        assert actual.shape[:2] == crop.shape[:2]
        np.testing.assert_array_equal(actual, crop)


def test_quadrilaterals_without_area_give_no_pixels() -> None:
    line = np.array([[[0.5, 0.1], [0.5, 0.2], [0.5, 0.7], [0.5, 0.3]], [[0.5, 0.5]] * 4])
    assert [crop.size for crop in cut_quadrilaterals(np.zeros((300, 500, 3), np.uint8), line)] == [0, 0]


def test_quadrilaterals_of_a_very_long_image() -> None:
    image = np.zeros((40, 40_000, 3), np.uint8)
    image[10:20, 39_000:39_100] = 255
    corner = np.array([[39_000, 10], [39_099, 10], [39_099, 19], [39_000, 19]]) / [40_000, 40]
    (crop,) = cut_quadrilaterals(image, corner[None])
    assert crop.shape == (9, 99, 3)
    assert crop.min() == 255


@pytest.mark.parametrize("width", [1, 40, 80, 81, 89, 90, 100, 119, 120, 121, 333])
def test_wide_crops_are_split_as_in_doctr(noise: Noise, width: int) -> None:
    crop = noise(10, width)
    expected, (mapping,), _ = split_crops([crop], MAX_CROP_RATIO, PIECE_RATIO, PIECE_OVERLAP)
    pieces, last_overlap = split(crop)
    assert len(pieces) == len(expected)
    assert all((a == b).all() for a, b in zip(pieces, expected, strict=True))
    assert last_overlap == (0 if isinstance(mapping, int) else mapping[2])
    texts = ["".join(chr(97 + (index * 3 + k) % 7) for k in range(6)) for index in range(len(pieces))]
    decoded = [Span(text, 1 / (index + 1)) for index, text in enumerate(texts)]
    ((text, confidence),) = remap_preds(
        [(piece.text, piece.confidence) for piece in decoded], [mapping], PIECE_OVERLAP
    )
    merged = merge(decoded, last_overlap)
    assert merged.text == text
    assert merged.confidence == pytest.approx(confidence)


@given(
    st.text("abc", max_size=9),
    st.text("abc", max_size=9),
    st.floats(0.01, 0.99),
)
def test_texts_are_merged_as_in_doctr(left: str, right: str, overlap: float) -> None:
    assert merge_texts(left, right, overlap) == merge_strings(left, right, overlap)


def random_logits(seed: int, end_bias: float) -> NDArray[np.float32]:
    logits = np.random.default_rng(seed).normal(0, 3, (40, 12, len(VOCABULARY) + 1)).astype(np.float32)
    logits[..., -1] += end_bias
    # Runs of one character, and words of nothing at all.
    logits[::3] = logits[::3, [0, 0, 1, 2, 2, 2, 3, 4, 4, 5, 6, 6]]
    logits[::7, :, -1] += 99
    return logits


@pytest.mark.parametrize("end_bias", [-9, 0, 3, 6])
@pytest.mark.parametrize(
    ("decoder", "reference"),
    [("ctc", CTCPostProcessor), ("attention", ViTSTRPostProcessor), ("attention", PARSeqPostProcessor)],
)
def test_characters_equal_doctr(decoder: str, reference: Any, end_bias: float) -> None:
    logits = random_logits(5, end_bias)
    expected = reference(VOCABULARY)(torch.from_numpy(logits))
    probabilities = torch.from_numpy(logits).softmax(-1).amax(-1).numpy()
    steps = Steps(logits.argmax(-1).astype(np.int32), probabilities)
    actual = DECODERS[decoder](steps, VOCABULARY)
    assert [word.text for word in actual] == [text for text, _ in expected]
    np.testing.assert_allclose(
        [word.confidence for word in actual], [confidence for _, confidence in expected], rtol=1e-5
    )


def test_no_steps_are_no_words() -> None:
    none = Steps(np.zeros((0, 12), np.int32), np.zeros((0, 12), np.float32))
    for decode in DECODERS.values():
        assert decode(none, VOCABULARY) == []

from typing import Any

import cv2
import numpy as np
import pytest
from doctr.models.detection._utils import _remove_padding
from doctr.models.detection.differentiable_binarization.base import DBPostProcessor
from doctr.models.detection.fast.base import FASTPostProcessor
from doctr.models.detection.linknet.base import LinkNetPostProcessor
from numpy.typing import NDArray

from gateway.models.doctr_detection import MapThresholds, find_boxes, find_quadrilaterals, remove_padding

# What the exporter writes of each architecture, and the class that it was taken from.
POSTPROCESSORS = [
    pytest.param(DBPostProcessor, MapThresholds(0.3, 0.1, 1.5, 2), id="db"),
    pytest.param(LinkNetPostProcessor, MapThresholds(0.1, 0.1, 1.5, 0), id="linknet"),
    pytest.param(FASTPostProcessor, MapThresholds(0.1, 0.1, 1.0, 0), id="fast"),
]


def probability_map(seed: int, size: int = 256) -> NDArray[np.float32]:
    """Bars of many sizes and angles, soft edges, specks, and noise across all thresholds."""
    random = np.random.default_rng(seed)
    canvas = np.zeros((size, size), np.float32)
    for _ in range(60):
        center = tuple(map(float, random.uniform(0, size, 2)))
        extent = (float(random.uniform(1, 60)), float(random.uniform(1, 14)))
        bar = cv2.boxPoints((center, extent, float(random.choice([0, 0, 3, 30, 80, -45]))))
        cv2.fillPoly(canvas, [bar.astype(np.int32)], float(random.uniform(0.05, 1)))
    noisy = cv2.GaussianBlur(canvas, (3, 3), 0) + random.normal(0, 0.02, canvas.shape)
    return noisy.clip(0, 1).astype(np.float32)


@pytest.mark.parametrize(("reference", "thresholds"), POSTPROCESSORS)
@pytest.mark.parametrize("seed", range(8))
def test_boxes_equal_doctr(reference: Any, thresholds: MapThresholds, seed: int) -> None:
    probability = probability_map(seed)
    ((expected,),) = reference(assume_straight_pages=True)(probability[None, :, :, None])
    boxes, scores = find_boxes(probability, thresholds)
    assert len(expected) > 10
    np.testing.assert_allclose(np.c_[boxes, scores], expected, atol=1e-7)


@pytest.mark.parametrize(("reference", "thresholds"), POSTPROCESSORS)
@pytest.mark.parametrize("seed", range(8))
def test_quadrilaterals_equal_doctr(reference: Any, thresholds: MapThresholds, seed: int) -> None:
    probability = probability_map(seed)
    ((expected,),) = reference(assume_straight_pages=False)(probability[None, :, :, None])
    corners, scores = find_quadrilaterals(probability, thresholds)
    assert len(expected) > 10
    np.testing.assert_allclose(corners, expected[:, :4], atol=1e-6)
    np.testing.assert_allclose(scores, expected[:, 4, 1], atol=1e-7)
    assert (np.ptp(corners[:, [0, 1], 1], axis=1) > 0.01).any(), "some words must be turned"


@pytest.mark.parametrize("thresholds", [(0.6, 0.1), (0.3, 0.4)])
def test_thresholds_are_those_of_doctr(thresholds: tuple[float, float]) -> None:
    bin_threshold, box_threshold = thresholds
    probability = probability_map(3)
    reference = DBPostProcessor(box_thresh=box_threshold, bin_thresh=bin_threshold)
    ((expected,),) = reference(probability[None, :, :, None])
    boxes, _ = find_boxes(probability, MapThresholds(bin_threshold, box_threshold, 1.5, 2))
    assert 0 < len(boxes) < len(find_boxes(probability, MapThresholds(0.3, 0.1, 1.5, 2))[0])
    np.testing.assert_allclose(boxes, expected[:, :4], atol=1e-7)


def test_a_full_map_is_one_word() -> None:
    boxes, _ = find_boxes(np.ones((64, 64), np.float32), MapThresholds(0.3, 0.1, 1.5, 2))
    assert boxes.tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (100, 100), (1, 50), (50, 1)])
def test_padding_is_removed_as_in_doctr(size: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    page = np.zeros((*size, 3), np.uint8)
    boxes = random.uniform(0, 1, (20, 4))
    (expected,) = _remove_padding([page], [{"words": np.c_[boxes, np.ones(20)]}], True, True, True)
    actual = remove_padding(boxes.reshape(-1, 2, 2), size).reshape(-1, 4)
    np.testing.assert_array_equal(actual, expected["words"][:, :4])
    corners = random.uniform(0, 1, (20, 5, 2))
    (expected,) = _remove_padding([page], [{"words": corners}], True, True, False)
    np.testing.assert_array_equal(remove_padding(corners[:, :4], size), expected["words"][:, :4])

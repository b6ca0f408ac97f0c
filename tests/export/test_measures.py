from typing import Any

import numpy as np
import pytest

from export import measures
from export.measures import Measure


def value(measure: Measure, actual: Any, expected: Any, **inputs: Any) -> float:
    """Of single outputs, or of dictionaries of them."""
    return measure.of(inputs, actual, expected)


def test_cosine_is_that_of_the_worst_row() -> None:
    measure = measures.cosine("y")
    expected = {"y": np.array([[1.0, 0], [0, 2]], np.float32)}
    assert value(measure, expected, expected) == pytest.approx(1)
    turned = {"y": np.array([[1.0, 0], [2, 2]], np.float32)}
    assert value(measure, turned, expected) == pytest.approx(2**-0.5)
    assert not measure.allows(float("nan"))


def test_mask_iou_is_that_of_all_masks_of_an_output() -> None:
    measure = measures.masks("mask")
    expected = np.full((1, 2, 4, 4), -1.0)
    expected[0, 0, :2] = 1
    actual = expected.copy()
    assert value(measure, {"mask": actual}, {"mask": expected}) == 1  # the second is empty in both
    actual[0, 0, 2, :4] = 3
    assert value(measure, {"mask": actual}, {"mask": expected}) == pytest.approx(8 / 12)
    actual[0, 1, 0, 0] = np.nan
    assert not measure.allows(value(measure, {"mask": actual}, {"mask": expected}))


def test_single_pixels_of_a_text_map_may_differ_and_not_the_map() -> None:
    measures_of = measures.text_maps("map", above=0.3)
    expected = np.zeros((1, 40, 40))
    expected[0, 10:30, 10:30] = 0.9
    edge = expected.copy()
    edge[0, 10, 10] = 0.2
    assert all(each.allows(value(each, {"map": edge}, {"map": expected})) for each in measures_of)
    faint = expected * 0.9
    overlap, mean = (value(each, {"map": faint}, {"map": expected}) for each in measures_of)
    assert overlap == 1
    assert mean == pytest.approx(0.09 / 4)
    assert not measures_of[1].allows(mean)
    assert not measures_of[1].allows(value(measures_of[1], {"map": expected * np.nan}, {"map": expected}))


def test_words_are_those_that_the_gateway_makes_of_classes() -> None:
    measure = measures.same_words(measures.words_of("ctc", "ab"))
    read = np.array([[0, 0, 2, 1], [1, 2, 1, 2]])
    assert value(measure, {"classes": read}, {"classes": np.array([[0, 2, 1, 1], [1, 2, 2, 1]])}) == 1
    assert value(measure, {"classes": read}, {"classes": np.array([[0, 2, 1, 1], [1, 1, 1, 1]])}) == 0.5


def detections(scores: list[list[float]], boxes: list[list[float]]) -> dict[str, Any]:
    """An answer of queries with these probabilities of six tokens: [CLS] dog . hot dog ."""
    logits = np.full((1, len(scores), 6), -20.0)
    logits[0][:, [1, 3, 4]] = np.log(np.array(scores) / (1 - np.array(scores)))
    return {"logits": logits, "boxes": np.array([boxes], np.float32)}


def test_boxes_are_matched_as_sets_of_the_same_phrase() -> None:
    measure = measures.boxes_of_phrases(0.4)
    text = {"input_ids": np.array([[5, 6, 7, 8, 6, 7]]), "position_ids": np.array([[0, 0, 1, 0, 1, 2]])}
    one, two = [0.3, 0.3, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2]
    expected = detections([[0.9, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.1]], [one, two, one])
    swapped = detections([[0.1, 0.8, 0.1], [0.9, 0.1, 0.1], [0.2, 0.1, 0.1]], [two, one, two])
    assert value(measure, swapped, expected, **text) == pytest.approx(1)
    renamed = detections([[0.9, 0.1, 0.1], [0.8, 0.1, 0.1], [0.1, 0.1, 0.1]], [one, two, one])
    assert value(measure, renamed, expected, **text) == 0
    lost = detections([[0.9, 0.1, 0.1], [0.1, 0.2, 0.1], [0.1, 0.1, 0.1]], [one, two, one])
    assert value(measure, lost, expected, **text) == 0
    assert value(measure, expected, lost, **text) == 0
    moved = detections([[0.9, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.1]], [[0.35, 0.3, 0.2, 0.2], two, one])
    assert value(measure, moved, expected, **text) == pytest.approx(0.6)


def test_words_may_differ_where_two_classes_are_as_good_as_equal() -> None:
    measure = measures.words(lambda classes: ["".join(map(str, row)) for row in classes])
    expected = {"logits": np.array([[[9.0, 1], [0, 5]], [[5.0, 4.99], [9, 0]]])}
    actual = {"logits": np.array([[[8.9, 1], [0, 5]], [[4.98, 5], [9, 0]]])}
    assert value(measure, actual, expected) == 1
    actual["logits"][0, 0] = [0, 9]
    assert value(measure, actual, expected) == 0.5


def test_degrees_between_gazes() -> None:
    measure = measures.degrees("gaze")
    expected = {"gaze": np.zeros((2, 2), np.float32)}
    actual = {"gaze": np.radians([[0, 0], [3, 0]]).astype(np.float32)}
    assert value(measure, actual, expected) == pytest.approx(3, rel=1e-4)
    assert not measure.allows(3)
    assert measure.allows(0.1)


def heads(score: float, shift: float) -> dict[str, Any]:
    found = {}
    for stride in (8, 16, 32):
        for name, width in (("cls", 1), ("obj", 1), ("bbox", 4)):
            found[f"{name}_{stride}"] = np.zeros((1, 4, width), np.float32)
    found["cls_16"][0, 2], found["obj_16"][0, 2] = score, score
    found["bbox_16"][0, 2, 0] = shift
    return found


def test_faces_are_those_of_the_same_cells() -> None:
    measure = measures.faces(0.6)
    assert value(measure, heads(0.9, 0), heads(0.8, 0)) == pytest.approx(1)
    assert value(measure, heads(0.9, 0.25), heads(0.9, 0)) == pytest.approx(0.75 / 1.25)
    assert value(measure, heads(0.9, 0), heads(0.3, 0)) == 0
    assert value(measure, heads(0.605, 0), heads(0.595, 0)) == 1

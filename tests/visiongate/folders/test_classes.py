import numpy as np
import pytest

from visiongate.answer import AnswerInfo, ImageInfo
from visiongate.detections import Detection, Detections
from visiongate.folders.classes import read_classes


def detection(phrase_index: int, score: float, *box: float) -> Detection:
    return Detection(np.array(box, np.float32), f"phrase {phrase_index}", score, phrase_index)


def test_phrases_and_definitions_are_classes_in_order() -> None:
    classes = read_classes(["spoon", "fork"], ["cup = cup, mug", "plate=dish"])
    assert classes.names == ("spoon", "fork", "cup", "plate")
    assert classes.phrases == ("spoon", "fork", "cup", "mug", "dish")
    assert classes.class_of == (0, 1, 2, 2, 3)


def test_an_object_with_two_names_is_one() -> None:
    classes = read_classes(["spoon"], ["cup=cup,mug"])
    found = Detections(
        [
            detection(2, 0.6, 0, 0, 100, 98),
            detection(1, 0.9, 0, 0, 100, 100),
            # Another class, and another place.
            detection(0, 0.5, 0, 0, 100, 100),
            detection(2, 0.4, 300, 0, 400, 100),
            # Two boxes of one phrase stay: the model itself has kept both.
            detection(1, 0.3, 0, 0, 100, 90),
        ],
        classes.phrases,
        AnswerInfo(images=(ImageInfo("", 400, 100),)),
        has_masks=False,
    )
    labels = classes.labels(found)
    assert [(label.phrase, label.phrase_index, label.score) for label in labels] == [
        ("cup", 1, 0.9),
        ("spoon", 0, 0.5),
        ("cup", 1, 0.4),
        ("cup", 1, 0.3),
    ]
    assert labels.classes == ("spoon", "cup")
    assert (labels.width, labels.height) == (400, 100)
    assert labels.to_yolo().splitlines()[0] == "1 0.125000 0.500000 0.250000 1.000000"


@pytest.mark.parametrize(
    ("phrases", "definitions", "says"),
    [
        ([], [], "give what to label: --phrase cup, or --class"),
        ([" "], [], "--phrase is empty"),
        ([], ["cup"], "--class 'cup': write name=phrase,phrase"),
        ([], ["=cup"], "--class '=cup'"),
        ([], ["cup=cup,"], "--class 'cup=cup,'"),
        (["cup", "cup"], [], "two classes are called 'cup'"),
        (["mug"], ["cup=cup,mug"], "two phrases are 'mug'"),
    ],
)
def test_definitions_that_make_no_sense(phrases: list[str], definitions: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_classes(phrases, definitions)

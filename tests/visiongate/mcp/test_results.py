"""Results are short, and say what an assistant cannot see in them."""

import grpc
import numpy as np

from visiongate import (
    AnswerInfo,
    ArrayAnswer,
    Detection,
    Detections,
    Face,
    ImageInfo,
    InvalidArgumentError,
    Page,
    Word,
)
from visiongate.mcp.results import FoundObjects, Gazes, Models, PageText, Ranking

INFO = AnswerInfo(model="tiny", images=(ImageInfo("id", 640, 480),))


def detections(count: int) -> Detections:
    box = np.array([1.4, 2.6, 30.2, 40.9], np.float32)
    return Detections([Detection(box, "cup", 0.87654, 0)] * count, ["cup"], INFO, has_masks=False)


def test_objects_have_rounded_numbers() -> None:
    data = FoundObjects.of(detections(1), 20).model_dump(exclude_none=True)
    assert data == {
        "width": 640,
        "height": 480,
        "model": "tiny",
        "objects": [{"phrase": "cup", "score": 0.877, "box": [1, 3, 30, 41]}],
    }


def test_a_note_says_how_to_find_more() -> None:
    assert FoundObjects.of(detections(0), 20).note == "Nothing was found. A lower min_score finds more."
    assert FoundObjects.of(detections(20), 20).note == "There may be more: max_objects is 20."
    assert FoundObjects.of(detections(19), 20).note is None
    assert "min_score" in (Gazes.of([], INFO, 20).note or "")
    assert PageText.of(Page([], "", 640, 480), INFO, with_boxes=True).note == "No text was found."
    assert Models.of([]).note == "This server offers no model."


def test_a_line_has_the_box_around_its_words() -> None:
    corners = np.array([[10, 10], [20, 10], [20, 15], [10, 15]], np.float32)
    words = [Word(text, 0.9, corners + shift, 0.9) for text, shift in (("to", 0), ("be", 30.4))]
    page = Page([[words]], "to be", 640, 480, 90)
    result = PageText.of(page, INFO, with_boxes=True)
    assert result.lines is not None
    assert [line.model_dump() for line in result.lines] == [{"text": "to be", "box": [10, 10, 50, 45]}]
    assert result.rotation_degrees == 90
    assert PageText.of(page, INFO, with_boxes=False).lines is None


def test_gazes_are_whole_degrees() -> None:
    box = np.array([1, 2, 3, 4], np.float32)
    face = Face(box, yaw=0.5, pitch=-0.25, direction=np.zeros(3, np.float32), score=0.98765, landmarks=None)
    [gaze] = Gazes.of([face], INFO, 20).faces
    assert gaze.model_dump() == {"box": [1, 2, 3, 4], "score": 0.988, "yaw_degrees": 29, "pitch_degrees": -14}


def test_the_most_similar_image_comes_first_and_bad_ones_last() -> None:
    error = InvalidArgumentError(grpc.StatusCode.INVALID_ARGUMENT, "cannot be decoded")
    cosines = ArrayAnswer(
        np.array([0.1, np.nan, 0.3], np.float32), AnswerInfo(model="tiny", errors={1: error})
    )
    assert Ranking.of(cosines).model_dump(exclude_none=True) == {
        "model": "tiny",
        "images": [
            {"index": 2, "similarity": 0.3},
            {"index": 0, "similarity": 0.1},
            {"index": 1, "error": "cannot be decoded"},
        ],
    }

"""Tasks from their settings, before any server is asked."""

import json
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pytest

from visiongate.answer import AnswerInfo, ArrayAnswer, ImageInfo
from visiongate.batch.columns import COLUMNS
from visiongate.batch.task import Row
from visiongate.batch.tasks import TASK_NAMES, make_task
from visiongate.errors import InvalidArgumentError, VisiongateError

NEEDED: dict[str, dict[str, Any]] = {"classify": {"labels": ["cat"]}, "detect": {"phrases": ["cat"]}}


@pytest.mark.parametrize("name", TASK_NAMES)
def test_settings_are_json_with_all_defaults(name: str) -> None:
    task = make_task(name, **NEEDED.get(name, {}))
    assert task.name == name
    assert json.loads(json.dumps(task.settings)) == task.settings
    assert {"images", "strict"}.isdisjoint(task.settings)
    assert "" in task.models.values()
    # What users name a column after must not hide a column of every job.
    assert set(task.columns.names).isdisjoint(COLUMNS.names)


def test_the_same_settings_are_equal_however_they_are_given() -> None:
    one = make_task("classify", labels=["cat", "dog"], top_k=1)
    other = make_task("classify", labels=iter(("cat", "dog")), top_k=np.int64(1), truncate=np.False_)
    assert one.settings == other.settings
    assert one.operation([b"1", b"2"]).request == other.operation([b"1", b"2"]).request
    # An iterator is not used up by the first batch.
    assert list(other.operation([b"3"]).request.labels) == ["cat", "dog"]  # type: ignore[attr-defined]


def test_an_operation_fails_image_by_image() -> None:
    for name in TASK_NAMES:
        request: Any = make_task(name, **NEEDED.get(name, {})).operation([b"1", b"2"]).request
        assert request.strict is False
        assert [image.encoded for image in request.images] == [b"1", b"2"]


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("blur", {}, "there is no task 'blur': it must be one of embed, classify, detect, segment"),
        ("embed", {"labels": ["cat"]}, "embed has no setting labels: its settings are normalize, dtype"),
        ("embed", {"dtype": "int8"}, "dtype is 'int8': it must be one of float32, float16"),
        ("embed", {"dtype": None}, "dtype is None: it must be a string"),
        ("classify", {"labels": "cat"}, "labels is a list of strings"),
        ("classify", {"labels": ["cat"], "top_k": 0}, "top_k is 0: it must be a whole number, 1 or more"),
        ("classify", {"labels": {"cat": 1}}, "labels is a dict"),
        ("detect", {"phrases": ["a"], "caption": "b"}, "phrases and caption are two ways"),
        ("detect", {"phrases": ["a"], "min_score": 2}, "min_score is 2: it must be 0 to 1"),
        ("detect", {"phrases": "cat"}, "phrases is a list of strings; for free text, use caption"),
        ("segment", {"phrases": "cat"}, "phrases is a list of strings; for free text, use caption"),
        ("segment", {"min_score": 0.5}, "min_score is for what words name: give phrases or a caption too"),
        ("segment", {"phrases": ["a"], "max_masks": 3}, "max_masks is for everything in sight: leave it out"),
        ("segment", {"points_per_side": 500}, "points_per_side is 500: it must be a whole number, 1 to 128"),
        ("ocr", {"reading_order": "up"}, "reading_order is 'up': it must be one of rows, columns"),
        ("gaze", {"small_faces": 1}, "small_faces is 1: it must be True or False"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_one_sentence(name: str, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        make_task(name, **settings)
    assert str(caught.value).startswith(sentence)


def test_settings_that_a_task_needs_are_named() -> None:
    with pytest.raises(TypeError, match=r"^classify needs the setting labels$"):
        make_task("classify")


def test_words_decide_what_segment_finds() -> None:
    assert make_task("segment").columns.names == ["masks"]
    assert make_task("segment").models == {"segmentation": ""}
    task = make_task("segment", caption="a cat", model="large", detection_model="tiny", nms_iou_threshold=0.5)
    assert task.columns.names == ["detections"]
    assert task.models == {"detection": "tiny", "segmentation": "large"}
    request: Any = task.operation([]).request
    assert (request.detection_model, request.segmentation_model) == ("tiny", "large")
    assert request.query.nms_iou_threshold == 0.5


def answer(vectors: Any, errors: dict[int, VisiongateError]) -> ArrayAnswer:
    images = tuple(None if index in errors else ImageInfo("", 4, 3) for index in range(len(vectors)))
    return ArrayAnswer(np.array(vectors, np.float32), AnswerInfo(images=images, errors=errors))


def test_a_failed_image_is_its_error_without_a_place_in_a_list() -> None:
    error = InvalidArgumentError(
        grpc.StatusCode.INVALID_ARGUMENT,
        "images[1].encoded: is cut off",
        field="images[1].encoded",
        request_id="r",
    )
    task = make_task("embed")
    good, failed = task.rows(answer([[1, 2], [np.nan, np.nan]], {1: error}))
    assert isinstance(good, Row)
    assert (good.width, good.height) == (4, 3)
    assert isinstance(failed, InvalidArgumentError)
    assert (failed.message, failed.field, failed.request_id) == ("is cut off", "image.encoded", "r")


def test_float16_rounds_and_says_what_it_cannot_hold() -> None:
    task = make_task("embed", dtype="float16", normalize=False)
    fine, large = task.rows(answer([[0.1, -65504], [1e5, 0]], {}))
    assert isinstance(fine, Row)
    assert fine.values["embedding"].tolist() == [float(np.float16(0.1)), -65504]
    assert pa.array([fine.values["embedding"]], task.columns.types[0]).type == pa.list_(pa.float16())
    assert isinstance(large, VisiongateError)
    assert large.code is grpc.StatusCode.OUT_OF_RANGE
    assert "100000" in large.message

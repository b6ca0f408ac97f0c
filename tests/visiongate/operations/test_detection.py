"""What the client sends to find objects."""

from typing import Any

import numpy as np
import pytest

from visiongate.operations import detection, segmentation

PIXELS = np.zeros((2, 4, 3), np.uint8)


@pytest.mark.parametrize("operation", [detection.detect, segmentation.segment_phrases])
def test_phrases_and_a_caption_are_two_ways(operation: Any) -> None:
    by_phrases = operation(PIXELS, ["truck", "wheel"]).request.query
    assert by_phrases.WhichOneof("words") == "phrases"
    assert by_phrases.phrases.values == ["truck", "wheel"]
    by_caption = operation(PIXELS, caption="a truck.").request.query
    assert (by_caption.WhichOneof("words"), by_caption.caption) == ("caption", "a truck.")
    # The server says then that it has neither.
    assert operation(PIXELS).request.query.WhichOneof("words") is None


@pytest.mark.parametrize("operation", [detection.detect, segmentation.segment_phrases])
def test_only_what_was_asked_is_sent(operation: Any) -> None:
    plain = operation(PIXELS, ["truck"]).request.query
    assert {field.name for field, _ in plain.ListFields()} == {"phrases"}
    query = operation(
        PIXELS, ["truck"], min_score=0, min_token_score=0.25, nms_iou_threshold=0.5, max_detections=3
    ).request.query
    assert (query.HasField("min_score"), query.min_score) == (True, 0)
    assert (query.min_token_score, query.nms_iou_threshold, query.max_detections) == (0.25, 0.5, 3)


def test_a_lone_string_is_not_a_list_of_phrases() -> None:
    with pytest.raises(TypeError, match="phrases is a list of strings; for free text, use caption"):
        detection.detect(PIXELS, "dog")

"""Prompts as callers give them, to messages."""

from typing import Any

import numpy as np
import pytest

from visiongate.operations import segmentation
from visiongate.v1 import segmentation_service_pb2

PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)


def test_prompts_are_sent_as_given() -> None:
    operation = segmentation.segment(
        PIXELS, boxes=[[1, 2, 3, 4]], points=[[[5, 6], [7, 8]]], labels=[[1, 0]], mask_logits=[np.eye(2)]
    )
    (prompt,) = operation.request.prompts  # type: ignore[attr-defined]
    assert (prompt.box.x_min, prompt.box.y_min, prompt.box.x_max, prompt.box.y_max) == (1, 2, 3, 4)
    assert [(item.point.x, item.point.y, item.label) for item in prompt.points] == [
        (5, 6, segmentation_service_pb2.POINT_LABEL_FOREGROUND),
        (7, 8, segmentation_service_pb2.POINT_LABEL_BACKGROUND),
    ]
    logits = np.frombuffer(prompt.mask_logits.data, "<f4").reshape(
        prompt.mask_logits.height, prompt.mask_logits.width
    )
    assert (logits == np.eye(2)).all()
    assert prompt.mask_logits.format == segmentation_service_pb2.LOGITS_FORMAT_FLOAT32


def test_prompts_may_differ() -> None:
    operation = segmentation.segment(
        PIXELS,
        boxes=[[1, 2, 3, 4], None, None],
        points=[[], [[5, 6]], np.array([[7, 8], [1, 1]])],
        labels=[None, None, [True, False]],
        mask_logits=[None, np.eye(2), None],
    )
    first, second, third = operation.request.prompts  # type: ignore[attr-defined]
    assert [prompt.HasField("box") for prompt in (first, second, third)] == [True, False, False]
    assert [len(prompt.points) for prompt in (first, second, third)] == [0, 1, 2]
    assert [item.label for item in third.points] == [1, 2]
    assert [prompt.HasField("mask_logits") for prompt in (first, second, third)] == [False, True, False]


@pytest.mark.parametrize("nothing", [[], (), np.zeros((0, 4))])
def test_no_prompts_are_no_error(nothing: Any) -> None:
    assert not segmentation.segment(PIXELS, boxes=nothing).request.prompts  # type: ignore[attr-defined]
    both = segmentation.segment(PIXELS, boxes=nothing, points=[], labels=[], mask_logits=[])
    assert not both.request.prompts  # type: ignore[attr-defined]

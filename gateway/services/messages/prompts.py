"""What points at objects: prompts of points, boxes and logits, checked."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gateway.errors import InvalidArgumentError
from gateway.models.sam import BACKGROUND, FOREGROUND, Prompt
from gateway.pipelines.images import ImageInfo
from gateway.services.messages.checks import check_count
from gateway.services.messages.geometry import box_array, check_inside
from gateway.services.messages.masks import logits_array
from visiongate.v1 import segmentation_service_pb2

MAX_POINTS = 64
POINT_LABELS = {
    segmentation_service_pb2.POINT_LABEL_FOREGROUND: FOREGROUND,
    segmentation_service_pb2.POINT_LABEL_BACKGROUND: BACKGROUND,
}


def prompts_of(messages: Sequence[segmentation_service_pb2.Prompt]) -> list[Prompt]:
    """Return prompts without their boxes, checked as far as that needs no image."""
    return [_prompt(message, f"prompts[{index}]") for index, message in enumerate(messages)]


def _prompt(message: segmentation_service_pb2.Prompt, path: str) -> Prompt:
    if not message.points and not message.HasField("box"):
        raise InvalidArgumentError(path, "has neither points nor a box")
    check_count(len(message.points), MAX_POINTS, f"{path}.points", "points")
    labels = np.array(
        [_label(item.label, f"{path}.points[{place}]") for place, item in enumerate(message.points)], np.int32
    )
    if not message.HasField("box") and FOREGROUND not in labels:
        raise InvalidArgumentError(
            f"{path}.points", "are all background: say with a point or a box what the object is"
        )
    points = np.array([(item.point.x, item.point.y) for item in message.points], np.float32).reshape(-1, 2)
    logits = (
        logits_array(message.mask_logits, f"{path}.mask_logits") if message.HasField("mask_logits") else None
    )
    return Prompt(points, labels, mask_logits=logits)


def _label(label: segmentation_service_pb2.PointLabel.ValueType, path: str) -> int:
    if label == segmentation_service_pb2.POINT_LABEL_UNSPECIFIED:
        raise InvalidArgumentError(
            f"{path}.label",
            "is not set: POINT_LABEL_FOREGROUND is on the object, POINT_LABEL_BACKGROUND off it",
        )
    if label not in POINT_LABELS:
        raise InvalidArgumentError(f"{path}.label", f"{label} is not a known label")
    return POINT_LABELS[label]


def placed(
    prompts: Sequence[Prompt], messages: Sequence[segmentation_service_pb2.Prompt], image: ImageInfo
) -> list[Prompt]:
    """Return the prompts with their boxes, checked to lie inside the image."""
    checked = []
    for index, (prompt, message) in enumerate(zip(prompts, messages, strict=True)):
        path = f"prompts[{index}]"
        for place, (x, y) in enumerate(prompt.points.tolist()):
            check_inside(x, image.width, f"{path}.points[{place}].point.x")
            check_inside(y, image.height, f"{path}.points[{place}].point.y")
        box = box_array(message.box, image, f"{path}.box") if message.HasField("box") else None
        checked.append(replace(prompt, box=box))
    return checked

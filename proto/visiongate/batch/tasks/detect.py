"""The objects in each image that words name."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from visiongate.answer import AnswerInfo, ImageInfo
from visiongate.batch.task import Task
from visiongate.batch.tasks.making import make
from visiongate.batch.tasks.types import BOX, MASK, box_value, mask_value, read_box_value, read_mask_value
from visiongate.detections import Detection, Detections
from visiongate.operations.detection import detect_batch

_FIELDS = [
    ("phrase", pa.string()),
    # The phrase's index in the settings; null if they have a caption.
    ("phrase_index", pa.int32()),
    ("score", pa.float32()),
    ("box", BOX),
]


def detection_columns(*, has_masks: bool) -> pa.Schema:
    """Return the column of detections, best first."""
    fields = [*_FIELDS, ("mask", MASK)] if has_masks else _FIELDS
    return pa.schema([("detections", pa.list_(pa.struct(fields)))])


def detection_values(detections: Detections) -> dict[str, Any]:
    found = []
    for item in detections:
        entry = {
            "phrase": item.phrase,
            "phrase_index": item.phrase_index,
            "score": item.score,
            "box": box_value(item.box),
        }
        found.append(entry if item.mask is None else entry | {"mask": mask_value(item.mask)})
    return {"detections": found}


def detections_of(
    entries: Iterable[Mapping[str, Any]], classes: Sequence[str], width: int, height: int
) -> Detections:
    """Return the detections of a row, as the client's answer had them.

    `classes` are the phrases of the job, or all that its caption led to. `width`, `height` are the image's.
    """
    items = [
        Detection(
            read_box_value(entry["box"]),
            entry["phrase"],
            entry["score"],
            entry["phrase_index"],
            read_mask_value(entry["mask"]) if "mask" in entry else None,
        )
        for entry in entries
    ]
    info = AnswerInfo(images=(ImageInfo("", width, height),))
    return Detections(items, classes, info, has_masks=any(item.mask for item in items))


def detect(
    *,
    phrases: Iterable[str] = (),
    caption: str = "",
    min_score: float | None = None,
    min_token_score: float | None = None,
    nms_iou_threshold: float | None = None,
    max_detections: int | None = None,
    model: str = "",
) -> Task:
    """Find the objects that phrases or a caption name, as `detect_batch` does."""
    return make(
        "detect",
        detect_batch,
        {
            "phrases": phrases,
            "caption": caption,
            "min_score": min_score,
            "min_token_score": min_token_score,
            "nms_iou_threshold": nms_iou_threshold,
            "max_detections": max_detections,
            "model": model,
        },
        models={"detection": model},
        batch_size=8,
        columns=detection_columns(has_masks=False),
        values=detection_values,
    )

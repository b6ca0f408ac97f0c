"""The masks of what words name in each image, or of everything in sight."""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from visiongate.batch.task import Task
from visiongate.batch.tasks.detect import detection_columns, detection_values
from visiongate.batch.tasks.making import Values, make
from visiongate.batch.tasks.types import MASK, POINT, mask_value, point_value, struct
from visiongate.operations.everything import GridMask, segment_everything_batch
from visiongate.operations.segmentation import segment_phrases_batch

# Best first.
_GRID_COLUMNS = pa.schema([("masks", pa.list_(struct(mask=MASK, stability_score=pa.float32(), point=POINT)))])


def segment(
    *,
    phrases: Iterable[str] = (),
    caption: str = "",
    min_score: float | None = None,
    min_token_score: float | None = None,
    max_detections: int | None = None,
    detection_model: str = "",
    points_per_side: int | None = None,
    crop_layers: int = 0,
    crop_overlap_ratio: float | None = None,
    crop_points_downscale: int | None = None,
    min_predicted_iou: float | None = None,
    min_stability_score: float | None = None,
    stability_offset: float | None = None,
    min_mask_area: int = 0,
    min_region_area: int = 0,
    max_masks: int | None = None,
    nms_iou_threshold: float | None = None,
    model: str = "",
) -> Task:
    """Cut out what phrases or a caption name, as `segment_phrases_batch` does, each object with its mask.

    Without words cut out everything, as `segment_everything_batch` does. `nms_iou_threshold` and `model`,
    which makes the masks, are for both ways. A setting of the other way raises ValueError.
    """
    phrases = phrases if isinstance(phrases, str) else list(phrases)
    of_words = {
        "min_score": min_score,
        "min_token_score": min_token_score,
        "max_detections": max_detections,
        "detection_model": detection_model,
    }
    of_everything = {
        "points_per_side": points_per_side,
        "crop_layers": crop_layers,
        "crop_overlap_ratio": crop_overlap_ratio,
        "crop_points_downscale": crop_points_downscale,
        "min_predicted_iou": min_predicted_iou,
        "min_stability_score": min_stability_score,
        "stability_offset": stability_offset,
        "min_mask_area": min_mask_area,
        "min_region_area": min_region_area,
        "max_masks": max_masks,
    }
    if phrases or caption:
        _refuse(of_everything, "is for everything in sight: leave it out, or phrases and caption")
        return make(
            "segment",
            segment_phrases_batch,
            of_words
            | {
                "phrases": phrases,
                "caption": caption,
                "nms_iou_threshold": nms_iou_threshold,
                "segmentation_model": model,
            },
            models={"detection": detection_model, "segmentation": model},
            batch_size=4,
            columns=detection_columns(has_masks=True),
            values=detection_values,
        )
    _refuse(of_words, "is for what words name: give phrases or a caption too")
    return make(
        "segment",
        segment_everything_batch,
        of_everything | {"nms_iou_threshold": nms_iou_threshold, "model": model},
        models={"segmentation": model},
        # Each takes seconds.
        batch_size=1,
        columns=_GRID_COLUMNS,
        values=_grid_values,
    )


def _refuse(settings: Values, why: str) -> None:
    for name, value in settings.items():
        if value not in (None, "", 0):
            raise ValueError(f"{name} {why}")


def _grid_values(masks: Iterable[GridMask]) -> dict[str, Any]:
    return {
        "masks": [
            {
                "mask": mask_value(item.mask),
                "stability_score": item.stability_score,
                "point": point_value(item.point),
            }
            for item in masks
        ]
    }

"""Arrow's types of boxes, points and masks, and the values that go into them.

All numbers are as the server sent them: nothing is rounded.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from visiongate.masks import Mask

_BOX_SIDES = ("x_min", "y_min", "x_max", "y_max")


def struct(**fields: pa.DataType) -> pa.DataType:
    return pa.struct(list(fields.items()))


BOX = struct(**dict.fromkeys(_BOX_SIDES, pa.float32()))
"""In pixels of the upright image."""

POINT = struct(x=pa.float32(), y=pa.float32())
DIRECTION = struct(x=pa.float32(), y=pa.float32(), z=pa.float32())

MASK = struct(
    predicted_iou=pa.float32(),
    area=pa.int64(),
    # Of whole pixels; right and bottom edges are exclusive.
    box=struct(**dict.fromkeys(_BOX_SIDES, pa.int32())),
    # COCO's compressed run lengths; the size is height, width.
    rle=struct(size=pa.list_(pa.int32(), 2), counts=pa.string()),
)


def box_value(box: NDArray[Any]) -> dict[str, Any]:
    return dict(zip(_BOX_SIDES, box.tolist(), strict=True))


def read_box_value(value: Mapping[str, Any]) -> NDArray[np.float32]:
    """Return the box of a row: float32 [4], x_min, y_min, x_max, y_max."""
    return np.array([value[side] for side in _BOX_SIDES], np.float32)


def point_value(point: NDArray[Any]) -> dict[str, float]:
    """Return a point or a direction."""
    return dict(zip("xyz", point.tolist(), strict=False))


def mask_value(mask: Mask) -> dict[str, Any]:
    return {
        "predicted_iou": mask.predicted_iou,
        "area": mask.area,
        "box": box_value(mask.box),
        "rle": dict(mask.rle),
    }


def read_mask_value(value: Mapping[str, Any]) -> Mask:
    """Return the mask of a row, without logits."""
    return Mask(
        predicted_iou=value["predicted_iou"],
        box=read_box_value(value["box"]).astype(np.int64),
        area=value["area"],
        rle=value["rle"],
        logits=None,
    )

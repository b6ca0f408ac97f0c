"""Points and boxes."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gateway.errors import InvalidArgumentError
from gateway.pipelines.images import ImageInfo, LoadedImage
from gateway.services.messages.checks import written
from visiongate.v1 import geometry_pb2


def point_message(point: Sequence[float] | NDArray[np.float32]) -> geometry_pb2.Point:
    """Return an (x, y) as a message."""
    x, y = map(float, point)
    return geometry_pb2.Point(x=x, y=y)


def box_message(box: Sequence[float] | NDArray[np.float32]) -> geometry_pb2.Box:
    """Return an xyxy box as a message."""
    x_min, y_min, x_max, y_max = map(float, box)
    return geometry_pb2.Box(x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max)


def box_array(box: geometry_pb2.Box, image: LoadedImage | ImageInfo, path: str) -> NDArray[np.float32]:
    """Return xyxy float32 [4]. Raise InvalidArgumentError if it is no box inside the image."""
    for name, value, limit in (
        ("x_min", box.x_min, image.width),
        ("y_min", box.y_min, image.height),
        ("x_max", box.x_max, image.width),
        ("y_max", box.y_max, image.height),
    ):
        check_inside(value, limit, f"{path}.{name}")
    if box.x_min >= box.x_max or box.y_min >= box.y_max:
        raise InvalidArgumentError(path, "is empty: x_min must be less than x_max, and y_min less than y_max")
    return np.array([box.x_min, box.y_min, box.x_max, box.y_max], np.float32)


def check_inside(value: float, limit: int, path: str) -> None:
    """Raise InvalidArgumentError for a coordinate that is no number from 0 to the image's side."""
    if not (math.isfinite(value) and 0 <= value <= limit):
        raise InvalidArgumentError(path, f"is {written(value)}, outside the image: it must be 0 to {limit}")

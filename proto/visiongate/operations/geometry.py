"""Boxes and points, to and from messages."""

import numpy as np
from numpy.typing import NDArray

from visiongate.v1 import geometry_pb2


def box_message(box: NDArray[np.float32]) -> geometry_pb2.Box:
    x_min, y_min, x_max, y_max = box.tolist()
    return geometry_pb2.Box(x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max)


def read_box(box: geometry_pb2.Box) -> NDArray[np.float32]:
    """Read a box: float32 [4], x_min, y_min, x_max, y_max."""
    return np.array([box.x_min, box.y_min, box.x_max, box.y_max], np.float32)


def read_point(point: geometry_pb2.Point) -> NDArray[np.float32]:
    """Read a point: float32 [2], x, y."""
    return np.array([point.x, point.y], np.float32)

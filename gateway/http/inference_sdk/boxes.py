"""Boxes, which inference-sdk has by their centre and their sides, in pixels."""

import uuid
from typing import Any

from gateway.errors import InvalidArgumentError
from gateway.http.json_reader import read_number
from gateway.http.json_text import Tree

_PARTS = ("x", "y", "width", "height")


def centred(x_min: float, y_min: float, x_max: float, y_max: float) -> dict[str, float]:
    """Return a box by its corners as the SDK has it."""
    return {
        "x": (x_min + x_max) / 2,
        "y": (y_min + y_max) / 2,
        "width": x_max - x_min,
        "height": y_max - y_min,
    }


def centred_box(box: Any) -> dict[str, float]:
    """Return a box of the API as the SDK has it."""
    return centred(box.x_min, box.y_min, box.x_max, box.y_max)


def prediction(box: dict[str, float], confidence: float, name: str, class_id: int) -> dict[str, Tree]:
    """Return something that was found, as the SDK and supervision read it."""
    return {
        **box,
        "confidence": confidence,
        "class": name,
        "class_id": class_id,
        "detection_id": str(uuid.uuid4()),
        "parent_id": None,
    }


def box_tree(value: Tree, path: str) -> Tree:
    """Return the SDK's box as the API takes it."""
    if not isinstance(value, dict) or any(value.get(part) is None for part in _PARTS):
        raise InvalidArgumentError(path, f"must be an object with {', '.join(_PARTS)}: centre and sides")
    x, y, width, height = (read_number(value[part], f"{path}.{part}") for part in _PARTS)
    return {
        "x_min": x - width / 2,
        "y_min": y - height / 2,
        "x_max": x + width / 2,
        "y_max": y + height / 2,
    }

"""Prompts, which point at objects by boxes, points with labels and earlier masks: from arrays to messages."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from visiongate.operations import arguments
from visiongate.operations.geometry import box_message
from visiongate.v1 import geometry_pb2, segmentation_service_pb2

Floats = NDArray[np.float32]

LABELS = {
    1: segmentation_service_pb2.POINT_LABEL_FOREGROUND,
    0: segmentation_service_pb2.POINT_LABEL_BACKGROUND,
}


def prompt_messages(
    boxes: ArrayLike | Sequence[ArrayLike | None] | None,
    points: Sequence[ArrayLike | None] | None,
    labels: Sequence[ArrayLike | None] | None,
    mask_logits: Sequence[ArrayLike | None] | None,
) -> list[segmentation_service_pb2.Prompt]:
    """Make prompts: prompt i has what each list has at i; see `segment`."""
    if boxes is None and points is None:
        raise ValueError("give boxes or points: what is to be cut out")
    if labels is not None and points is None:
        raise ValueError("labels are of points: give points")
    lists = {
        "boxes": None if boxes is None else arguments.boxes(boxes, "boxes"),
        "points": _each(points, "points", _points),
        "labels": _each(labels, "labels", _labels),
        "mask_logits": _each(mask_logits, "mask_logits", _logits),
    }
    counts = {name: len(items) for name, items in lists.items() if items is not None}
    if len(set(counts.values())) != 1:
        listing = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise ValueError(
            f"give as many of each as there are prompts, and None if a prompt has none: not {listing}"
        )
    (count,) = set(counts.values())
    absent: Sequence[None] = [None] * count
    columns = [items or absent for items in lists.values()]
    return [_prompt(index, *parts) for index, parts in enumerate(zip(*columns, strict=True))]


def _each(values: Any, name: str, read: Callable[[Any, str], Floats]) -> list[Floats | None] | None:
    if values is None:
        return None
    items = arguments.listed(values, name, f"{name} of each prompt")
    return [None if item is None else read(item, f"{name}[{index}]") for index, item in enumerate(items)]


def _prompt(
    index: int, box: Floats | None, points: Floats | None, labels: Floats | None, logits: Floats | None
) -> segmentation_service_pb2.Prompt:
    count = 0 if points is None else len(points)
    if box is None and not count:
        advice = ": mask_logits refine an answer, and point at nothing" if logits is not None else ""
        raise ValueError(f"prompt {index} has neither a box nor points{advice}")
    if labels is not None and len(labels) != count:
        raise ValueError(f"prompt {index} has {count} points but {len(labels)} labels")
    return segmentation_service_pb2.Prompt(
        box=None if box is None else box_message(box),
        points=None if points is None else _point_messages(points, labels),
        mask_logits=None if logits is None else _logits_message(logits),
    )


def _points(value: Any, name: str) -> Floats:
    """Read the points of a prompt: float32 [n, 2]."""
    points = arguments.array(value, name, "points are a list of [x, y]")
    match points.shape:
        case (0,):
            return points.reshape(0, 2)
        case (_, 2):
            return points
        case () | (_,):
            advice = "each prompt has a list of points [x, y], also of one: points=[[[x, y]]]"
        case (_, size) if size > 2:
            advice = "a point is [x, y]; labels go into `labels`"
        case _:
            advice = "points are a list of [x, y]"
    raise ValueError(f"{name} is {arguments.shown(value)}: {advice}")


def _labels(value: Any, name: str) -> Floats:
    """Read the labels of a prompt: float32 [n], 0 or 1."""
    labels = arguments.array(value, name, "labels are a list of 1 (on the object) and 0 (off it)", "iufb")
    if labels.ndim != 1:
        raise ValueError(
            f"{name} is {arguments.shown(value)}: each prompt has a list of labels, also of one: labels=[[1]]"
        )
    known = np.isin(labels, list(LABELS))
    if not known.all():
        raise ValueError(
            f"{name} has {arguments.first(labels, ~known)}: a label is 1 (on the object) or 0 (off it). "
            "SAM's -1 is padding: leave such points out. Its 2 and 3 are corners of a box: use `boxes`"
        )
    return labels


def _logits(value: Any, name: str) -> Floats:
    """Read the logits of a mask: float32 [m, m]."""
    logits = arguments.array(value, name, "the logits of a mask are [m, m] numbers")
    if logits.ndim != 2 or not logits.size:
        raise ValueError(
            f"{name} has the shape {list(logits.shape)}: the logits of a mask are [m, m], as mask.logits is"
        )
    return logits


def _point_messages(points: Floats, labels: Floats | None) -> list[segmentation_service_pb2.PromptPoint]:
    marks = [1] * len(points) if labels is None else labels.tolist()
    return [
        segmentation_service_pb2.PromptPoint(point=geometry_pb2.Point(x=x, y=y), label=LABELS[int(mark)])
        for (x, y), mark in zip(points.tolist(), marks, strict=True)
    ]


def _logits_message(logits: Floats) -> segmentation_service_pb2.MaskLogits:
    height, width = logits.shape
    return segmentation_service_pb2.MaskLogits(
        data=logits.astype("<f4").tobytes(),
        height=height,
        width=width,
        format=segmentation_service_pb2.LOGITS_FORMAT_FLOAT32,
    )

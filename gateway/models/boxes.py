"""Boxes as arrays [...,4]: xyxy in pixels, unless a name says otherwise."""

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float32]


def cxcywh_to_xyxy(boxes: Boxes) -> Boxes:
    """Turn (centre x, centre y, width, height) [...,4] into (x_min, y_min, x_max, y_max)."""
    centre, half = boxes[..., :2], boxes[..., 2:] * np.float32(0.5)
    return np.concatenate([centre - half, centre + half], axis=-1)


def scale(boxes: Boxes, size: tuple[int, int]) -> Boxes:
    """Scale xyxy boxes in 0..1 to pixels of an image of `size` (height, width)."""
    height, width = size
    return boxes * np.array([width, height, width, height], dtype=np.float32)


def clip(boxes: Boxes, size: tuple[int, int]) -> Boxes:
    """Clip xyxy pixel boxes to an image of `size` (height, width): x to 0..width, y to 0..height."""
    height, width = size
    return np.clip(boxes, np.float32(0), np.array([width, height, width, height], dtype=np.float32))


def iou(boxes: Boxes, others: Boxes) -> Boxes:
    """Return the intersection over union of xyxy boxes [N,4] and [M,4], float32 [N,M].

    It is 0 for two boxes without area.
    """
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    sides = np.maximum(high - low, 0)
    intersection = sides[..., 0] * sides[..., 1]
    union = _area(boxes)[:, None] + _area(others)[None] - intersection
    overlap: Boxes = np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
    return overlap


def nms(
    boxes: Boxes, scores: Boxes, iou_threshold: float, classes: NDArray[np.integer] | None = None
) -> NDArray[np.intp]:
    """Return the indices kept by greedy non-maximum suppression, by falling score (ties in input order).

    boxes: float32 [N,4] xyxy. scores: float32 [N]. A box is dropped if its IoU with a kept box of higher
    score is over the threshold. With `classes` [N], only boxes of the same class suppress each other. Agrees
    with `torchvision.ops.nms` and `batched_nms`.
    """
    order = np.argsort(-scores, kind="stable")
    # Four contiguous rows, best box first. The many small steps would be several times slower on [N,4].
    x_min, y_min, x_max, y_max = np.ascontiguousarray(boxes[order].T)
    areas = (x_max - x_min) * (y_max - y_min)
    ranked_classes = None if classes is None else classes[order]
    alive = np.ones(len(order), dtype=np.bool_)
    for best in range(len(order)):
        if not alive[best]:
            continue
        rest = slice(best + 1, None)
        widths = np.minimum(x_max[best], x_max[rest]) - np.maximum(x_min[best], x_min[rest])
        heights = np.minimum(y_max[best], y_max[rest]) - np.maximum(y_min[best], y_min[rest])
        intersections = np.maximum(widths, 0) * np.maximum(heights, 0)
        unions = areas[best] + areas[rest] - intersections
        with np.errstate(invalid="ignore"):  # 0/0, for boxes without area, is over no threshold
            rivals = intersections / unions > iou_threshold
        if ranked_classes is not None:
            rivals &= ranked_classes[rest] == ranked_classes[best]
        alive[rest] &= ~rivals
    return order[alive]


def _area(boxes: Boxes) -> Boxes:
    area: Boxes = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return area


def turn_back(points: NDArray[np.float32], turns: int, size: tuple[int, int]) -> NDArray[np.float32]:
    """Map points float32 [n,2] of a turned image back to (x, y) of the image before.

    turns: how many quarter turns clockwise. size: the image's (height, width) before them.
    """
    height, width = size
    x, y = points[:, 0], points[:, 1]
    return np.stack([(x, y), (y, height - x), (width - x, height - y), (width - y, x)][turns % 4], axis=1)

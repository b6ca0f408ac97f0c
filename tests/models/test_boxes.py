import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.models import boxes as box_ops

ops = pytest.importorskip("torchvision.ops")


def some_boxes(rng: np.random.Generator, count: int) -> box_ops.Boxes:
    corners = rng.uniform(0, 100, (count, 2, 2)).astype(np.float32)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def test_known_boxes() -> None:
    boxes = np.array([[0.5, 0.5, 0.2, 0.4], [0.0, 1.0, 0.5, 0.5]], dtype=np.float32)
    xyxy = box_ops.cxcywh_to_xyxy(boxes)
    np.testing.assert_allclose(xyxy, [[0.4, 0.3, 0.6, 0.7], [-0.25, 0.75, 0.25, 1.25]], atol=1e-6)
    pixels = box_ops.scale(xyxy, (100, 200))
    np.testing.assert_allclose(pixels, [[80, 30, 120, 70], [-50, 75, 50, 125]], atol=1e-4)
    clipped = box_ops.clip(pixels, (100, 200))
    np.testing.assert_allclose(clipped, [[80, 30, 120, 70], [0, 75, 50, 100]], atol=1e-4)
    assert clipped.dtype == np.float32


def test_iou_equals_torchvision() -> None:
    rng = np.random.default_rng(1)
    one, other = some_boxes(rng, 50), some_boxes(rng, 70)
    expected = ops.box_iou(torch.from_numpy(one), torch.from_numpy(other)).numpy()
    np.testing.assert_allclose(box_ops.iou(one, other), expected, atol=1e-6)
    assert box_ops.iou(one[:0], other).shape == (0, 70)


def test_iou_of_boxes_without_area_is_zero() -> None:
    point = np.array([[5, 5, 5, 5]], dtype=np.float32)
    assert box_ops.iou(point, point).tolist() == [[0.0]]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 120),
    threshold=st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 1.0]),
    tied=st.booleans(),
    several=st.booleans(),
)
def test_nms_equals_torchvision(seed: int, count: int, threshold: float, tied: bool, several: bool) -> None:
    rng = np.random.default_rng(seed)
    boxes = some_boxes(rng, count)
    boxes[: count // 4] = boxes[count // 4 : 2 * (count // 4)]  # exact duplicates
    scores = rng.uniform(0, 1, count).astype(np.float32)
    if tied:
        scores = np.round(scores, 1)
    classes = rng.integers(0, 3, count)
    tensors = torch.from_numpy(boxes), torch.from_numpy(scores)
    if several:
        # Class by class: batched_nms moves classes apart by adding offsets, which rounds the IoU.
        keep = torch.zeros(count, dtype=torch.bool)
        for name in range(3):
            members = torch.from_numpy(np.flatnonzero(classes == name))
            keep[members[ops.nms(tensors[0][members], tensors[1][members], threshold)]] = True
        kept = box_ops.nms(boxes, scores, threshold, classes)
        assert set(kept.tolist()) == set(torch.nonzero(keep).flatten().tolist())
        assert (np.diff(scores[kept]) <= 0).all()
    else:
        expected = ops.nms(*tensors, threshold).tolist()
        assert box_ops.nms(boxes, scores, threshold).tolist() == expected


def test_nms_equals_batched_nms() -> None:
    rng = np.random.default_rng(3)
    boxes, scores = some_boxes(rng, 300), rng.uniform(0, 1, 300).astype(np.float32)
    classes = rng.integers(0, 4, 300)
    expected = ops.batched_nms(
        torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(classes), 0.4
    )
    assert box_ops.nms(boxes, scores, 0.4, classes).tolist() == expected.tolist()


@pytest.mark.parametrize(("classes", "kept"), [(None, [1]), ([0, 0], [1]), ([0, 1], [1, 0])])
def test_only_boxes_of_one_class_suppress_each_other(classes: list[int] | None, kept: list[int]) -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9]], dtype=np.float32)
    scores = np.array([0.5, 0.6], dtype=np.float32)
    assert box_ops.nms(boxes, scores, 0.5, None if classes is None else np.array(classes)).tolist() == kept


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_points_of_a_turned_image_are_found_back(turns: int) -> None:
    image = np.arange(6 * 9).reshape(6, 9)
    turned = np.rot90(image, -turns)
    centre = np.array([0.5, 0.5], np.float32)
    rows, columns = np.indices(turned.shape)
    points = np.stack([columns.ravel(), rows.ravel()], 1).astype(np.float32) + centre
    back = (box_ops.turn_back(points, turns, (6, 9)) - centre).astype(int)
    assert (image[back[:, 1], back[:, 0]] == turned.ravel()).all()

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from gateway.models.face_detection import HEADS, LANDMARKS, OUTPUTS, STRIDES, YuNetSpec

DETECTION = YuNetSpec(canvas=640, small_faces_canvas=1280)
SMALL = YuNetSpec(canvas=64, small_faces_canvas=128)
Pixels = NDArray[np.uint8]
Photo = Callable[[str], Pixels]
Noise = Callable[[int, int], Pixels]
Heads = dict[str, NDArray[np.float32]]


def blank(side: int) -> Heads:
    """Heads of a canvas without faces."""
    values = dict(zip(HEADS, (1, 1, 4, 10), strict=True))
    return {
        f"{head}_{stride}": np.zeros(((side // stride) ** 2, values[head]), np.float32)
        for head in HEADS
        for stride in STRIDES
    }


def put(heads: Heads, stride: int, row: int, column: int, side: int, score: float = 0.81) -> int:
    """A face in a cell, of two by three cells; returns the cell's index."""
    cell = row * (side // stride) + column
    heads[f"cls_{stride}"][cell] = score
    heads[f"obj_{stride}"][cell] = 1
    heads[f"bbox_{stride}"][cell] = [0.5, 0.25, np.log(2), np.log(3)]
    heads[f"kps_{stride}"][cell] = np.arange(10) / 10
    return cell


def found(heads: Heads, size: tuple[int, int], original: tuple[int, int], **query: Any) -> Any:
    defaults = {"min_score": 0.5, "nms_iou_threshold": 0.3, "max_faces": 100}
    return SMALL.postprocess(heads, size, original, **(defaults | query))


def test_a_cell_becomes_a_face_in_the_images_pixels() -> None:
    heads = blank(64)
    put(heads, 8, row=3, column=4, side=64)
    (face,) = found(heads, (60, 64), (120, 256))
    assert face.score == pytest.approx(0.9)
    # On the canvas: centre (4.5, 3.25) cells, size (2, 3) cells; the image is 4 times as wide, twice as high.
    np.testing.assert_allclose(face.box, [3.5 * 32, 1.75 * 16, 5.5 * 32, 4.75 * 16], rtol=1e-5)
    np.testing.assert_allclose(face.landmarks[0], [4.0 * 32, 3.1 * 16], rtol=1e-5)
    np.testing.assert_allclose(face.landmarks[4], [4.8 * 32, 3.9 * 16], rtol=1e-5)
    assert len(LANDMARKS) == len(face.landmarks)


def test_strides_have_their_own_cells() -> None:
    for stride in STRIDES:
        heads = blank(64)
        put(heads, stride, row=1, column=0, side=64)
        (face,) = found(heads, (64, 64), (64, 64))
        np.testing.assert_allclose(face.box[0], max(0, -0.5 * stride), atol=1e-4)
        np.testing.assert_allclose(face.landmarks[0], [0, 1.1 * stride], rtol=1e-5)


def test_boxes_end_at_the_image_and_landmarks_do_not() -> None:
    heads = blank(64)
    cell = put(heads, 8, row=7, column=7, side=64)
    heads["kps_8"][cell] = 3
    (face,) = found(heads, (64, 64), (64, 64))
    assert face.box[2:].tolist() == [64, 64]
    assert face.landmarks[0].tolist() == [80, 80]


def test_a_face_in_the_padding_is_none() -> None:
    heads = blank(64)
    put(heads, 8, row=7, column=0, side=64)
    assert found(heads, (30, 64), (30, 64)) == []


def test_best_first_and_no_more_than_asked() -> None:
    heads = blank(64)
    for column, score in ((0, 0.36), (3, 0.81), (6, 0.64)):
        put(heads, 8, row=3, column=column, side=64, score=score)
    everything = found(heads, (64, 64), (64, 64))
    assert [face.score for face in everything] == pytest.approx([0.9, 0.8, 0.6])
    assert [face.score for face in found(heads, (64, 64), (64, 64), max_faces=2)] == pytest.approx([0.9, 0.8])
    assert [face.score for face in found(heads, (64, 64), (64, 64), min_score=0.7)] == pytest.approx(
        [0.9, 0.8]
    )
    assert found(heads, (64, 64), (64, 64), min_score=1) == []


def test_overlapping_faces_are_one() -> None:
    heads = blank(64)
    put(heads, 8, row=3, column=3, side=64, score=0.49)
    put(heads, 8, row=3, column=4, side=64)  # shares a third of both
    assert len(found(heads, (64, 64), (64, 64), nms_iou_threshold=0.3)) == 1
    assert len(found(heads, (64, 64), (64, 64), nms_iou_threshold=0.4)) == 2


def test_every_score_wanted_is_bounded_work() -> None:
    rng = np.random.default_rng(0)
    heads = {name: rng.uniform(0, 1, values.shape).astype(np.float32) for name, values in blank(1280).items()}
    faces = DETECTION.postprocess(
        heads, (1280, 1280), (1280, 1280), min_score=0, nms_iou_threshold=1, max_faces=10**6
    )
    assert len(faces) == 5000


@pytest.mark.parametrize(
    ("size", "small", "canvas", "valid"),
    [
        ((480, 640), False, 640, (480, 640)),
        ((1200, 1800), False, 640, (427, 640)),
        ((1200, 1800), True, 1280, (853, 1280)),
        ((3, 5), False, 640, (3, 5)),
        ((1, 5000), False, 640, (1, 640)),
        ((5000, 1), True, 1280, (1280, 1)),
    ],
)
def test_canvas(
    noise: Noise, size: tuple[int, int], small: bool, canvas: int, valid: tuple[int, int]
) -> None:
    image = noise(*size)
    placed, valid_size = DETECTION.preprocess(image, small_faces=small)
    assert (placed.shape, valid_size) == ((canvas, canvas, 3), valid)
    assert placed.dtype == np.uint8
    assert placed[: valid[0], : valid[1]].any()
    assert not placed[valid[0] :].any()
    assert not placed[:, valid[1] :].any()
    if valid == size:
        np.testing.assert_array_equal(placed[: size[0], : size[1]], image)


def crowd(astronaut: Pixels) -> Pixels:
    """Many faces: large and small, mirrored, cut by the borders."""
    face = astronaut[30:230, 130:320]
    half = cv2.resize(face, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA)
    tiny = cv2.resize(face, None, fx=0.12, fy=0.12, interpolation=cv2.INTER_AREA)
    row = np.concatenate([half, half[:, ::-1]] * 4, 1)
    tinies = np.concatenate([tiny] * (row.shape[1] // tiny.shape[1]), 1)
    tinies = np.pad(tinies, ((0, 0), (0, row.shape[1] - tinies.shape[1]), (0, 0)))
    picture = np.concatenate([row[20:], tinies, row], 0)
    return np.ascontiguousarray(picture[:, 25:-25])


@pytest.mark.parametrize("kind", ["astronaut", "enlarged", "crowd", "truck", "sliver"])
@pytest.mark.parametrize(("min_score", "nms_iou_threshold"), [(0.6, 0.3), (0.2, 0.3), (0.1, 0.7)])
def test_faces_equal_opencvs(
    data: Callable[[str], Path], photo: Photo, kind: str, min_score: float, nms_iou_threshold: float
) -> None:
    astronaut = photo("skimage_astronaut.png")
    image: Any = {
        "astronaut": astronaut,
        "enlarged": cv2.resize(astronaut[40:200, 150:300], None, fx=5, fy=5),
        "crowd": crowd(astronaut),
        "truck": photo("truck.jpg"),
        "sliver": astronaut[64:176, 180:225],
    }[kind]
    path = str(data("face/yunet_n_dynamic.onnx"))
    canvas, valid_size = DETECTION.preprocess(image)
    reference: Any = cv2.FaceDetectorYN.create(path, "", (640, 640), min_score, nms_iou_threshold, 5000)
    _, rows = reference.detect(canvas[:, :, ::-1].copy())
    rows = np.zeros((0, 15), np.float32) if rows is None else rows
    rows = rows[np.argsort(-rows[:, 14], kind="stable")]

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    planes = canvas[None, :, :, ::-1].transpose(0, 3, 1, 2).astype(np.float32)
    heads = {
        name: value[0] for name, value in zip(OUTPUTS, session.run(OUTPUTS, {"input": planes}), strict=True)
    }
    # As if the canvas were the image: nothing is scaled, and only the canvas clips.
    faces = DETECTION.postprocess(
        heads,
        (640, 640),
        (640, 640),
        min_score=min_score,
        nms_iou_threshold=nms_iou_threshold,
        max_faces=5000,
    )
    assert len(faces) == len(rows)
    assert len(faces) > {"astronaut": 0, "enlarged": 0, "crowd": 15}.get(kind, -1)
    for face, row in zip(faces, rows, strict=True):
        corners = np.concatenate([row[:2], row[:2] + row[2:4]]).clip(0, 640)
        np.testing.assert_allclose(face.box, corners, atol=1e-2)
        np.testing.assert_allclose(face.landmarks.ravel(), row[4:14], atol=1e-2)
        assert face.score == pytest.approx(row[14], abs=1e-5)
    scaled = DETECTION.postprocess(
        heads,
        valid_size,
        image.shape[:2],
        min_score=min_score,
        nms_iou_threshold=nms_iou_threshold,
        max_faces=5000,
    )
    # Padding has no faces in these pictures.
    assert len(scaled) == len(faces)
    factor = image.shape[1] / valid_size[1]
    for one, other in zip(scaled, faces, strict=True):
        np.testing.assert_allclose(one.landmarks[:, 0], other.landmarks[:, 0] * factor, rtol=1e-5, atol=1e-3)

"""YuNet: images to canvases, raw heads to faces.

Agrees with OpenCV's `FaceDetectorYN` on the same model file at the canvas's size.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from gateway.models import boxes as box_ops
from gateway.models.parameters import ParameterReader
from gateway.models.resizing import place, resize

STRIDES = (8, 16, 32)
HEADS = ("cls", "obj", "bbox", "kps")
OUTPUTS = tuple(f"{head}_{stride}" for head in HEADS for stride in STRIDES)
"""The network's outputs, each [B, cells, values]. Cells are squares of stride pixels, row by row."""

LANDMARKS = ("right_eye", "left_eye", "nose_tip", "right_mouth_corner", "left_mouth_corner")
"""The five points of a face, in YuNet's order. Left and right are the person's own."""

# Best faces that are compared for overlaps, in OpenCV too. Bounds the work if a caller accepts every score.
MAX_CANDIDATES = 5000


@dataclass(frozen=True, slots=True, eq=False)
class DetectedFace:
    """A face that was found, in pixels of the image.

    box: float32 [4] xyxy, clipped to the image. score: 0 to 1. landmarks: float32 [5,2] of (x, y), in the
    order of LANDMARKS, not clipped.
    """

    box: NDArray[np.float32]
    score: float
    landmarks: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class YuNetSpec:
    """Sides of the square canvases, in pixels: the usual one, and the one for images with small faces."""

    canvas: int
    small_faces_canvas: int

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str], folder: Path) -> Self:
        """Read `canvas` and `small_faces_canvas`, multiples of the largest stride.

        Raises ValueError that names the parameter that is missing or wrong.
        """
        reader = ParameterReader(parameters)
        return cls(reader.multiple("canvas", STRIDES[-1]), reader.multiple("small_faces_canvas", STRIDES[-1]))

    @property
    def input_size(self) -> int:
        """Longest side, in pixels, that images are resized to."""
        return self.canvas

    def preprocess(
        self, image: NDArray[np.uint8], *, small_faces: bool = False
    ) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        """Shrink RGB uint8 [H,W,3] if it is larger than a square canvas, and put it at the top-left.

        Returns the canvas uint8 [S,S,3], zero elsewhere as OpenCV pads, and the (height, width) that the
        image covers. All canvases have one shape, so that Triton can join requests; the price is that a wide
        image costs as much as a square one. Images are never enlarged, because that would add no detail.
        """
        side = self.small_faces_canvas if small_faces else self.canvas
        factor = min(1.0, side / max(image.shape[:2]))
        height, width = (max(1, round(length * factor)) for length in image.shape[:2])
        return place(resize(image, (height, width)), (side, side)), (height, width)

    def postprocess(
        self,
        heads: Mapping[str, NDArray[np.float32]],
        valid_size: tuple[int, int],
        original_size: tuple[int, int],
        *,
        min_score: float,
        nms_iou_threshold: float,
        max_faces: int,
    ) -> list[DetectedFace]:
        """Turn the raw heads of one square canvas (OUTPUTS, each [cells, values]) into faces, best first.

        valid_size and original_size are the (height, width) of the image on the canvas and of the image
        itself.
        """
        scores, boxes, landmarks = decode(heads)
        candidates = np.flatnonzero(scores >= min_score)
        candidates = candidates[np.argsort(-scores[candidates], kind="stable")][:MAX_CANDIDATES]
        scores, boxes, landmarks = scores[candidates], boxes[candidates], landmarks[candidates]
        # OpenCV compares faces in whole pixels of the canvas.
        origin, extent = np.trunc(boxes[:, :2]), np.trunc(boxes[:, 2:])
        kept = box_ops.nms(np.concatenate([origin, origin + extent], 1), scores, nms_iou_threshold)

        to_image = np.divide(original_size[::-1], valid_size[::-1], dtype=np.float32)
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
        corners = box_ops.clip(corners * np.tile(to_image, 2), original_size)
        landmarks *= to_image
        faces = (
            DetectedFace(corners[index], float(scores[index]), landmarks[index])
            for index in kept
            # Nothing is left of a box in the padding.
            if (corners[index, 2:] > corners[index, :2]).all()
        )
        return [face for face, _ in zip(faces, range(max_faces), strict=False)]


def decode(
    heads: Mapping[str, NDArray[np.float32]],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return scores [N], boxes [N,4] (x, y, width, height) and landmarks [N,5,2] of a square canvas's cells.

    Units are pixels of the canvas. The N cells come in the order of the strides, then row by row.
    """
    scores, boxes, landmarks = [], [], []
    for stride in STRIDES:
        cls, obj, bbox, kps = (heads[f"{head}_{stride}"] for head in HEADS)
        side = round(len(cls) ** 0.5)
        rows, columns = np.divmod(np.arange(len(cls)), side)
        cells = np.stack([columns, rows], 1).astype(np.float32)
        scores.append(np.sqrt(np.clip(cls[:, 0], 0, 1) * np.clip(obj[:, 0], 0, 1)))
        centre = (cells + bbox[:, :2]) * np.float32(stride)
        # No trained network reaches this bound. It keeps a diverging one from infinities.
        extent = np.exp(np.minimum(bbox[:, 2:], np.float32(20))) * np.float32(stride)
        boxes.append(np.concatenate([centre - extent / 2, extent], 1))
        landmarks.append((kps.reshape(-1, 5, 2) + cells[:, None]) * np.float32(stride))
    return np.concatenate(scores), np.concatenate(boxes), np.concatenate(landmarks)

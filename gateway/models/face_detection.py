"""YuNet: an image to its canvas, raw heads to faces.

Agrees with OpenCV's `FaceDetectorYN` on the same file at the canvas's size.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from gateway.models import boxes as boxes_
from gateway.models import image as images

STRIDES = (8, 16, 32)
HEADS = ("cls", "obj", "bbox", "kps")
OUTPUTS = tuple(f"{head}_{stride}" for head in HEADS for stride in STRIDES)
"""The network's outputs, each [B, cells, values]: a cell for every stride pixels, row by row."""

LANDMARKS = ("right_eye", "left_eye", "nose_tip", "right_mouth_corner", "left_mouth_corner")
"""What the five points of a face are, in YuNet's order; left and right are the person's own."""

# Of OpenCV too: what is looked at for overlaps. Bounds the work where a caller asks for every score.
MAX_CANDIDATES = 5000


@dataclass(frozen=True, slots=True, eq=False)
class DetectedFace:
    """A face that was found, in pixels of the image.

    box: float32 [4] xyxy, clipped to the image. score: 0..1. landmarks: float32 [5,2] of (x, y) in the
    order of LANDMARKS, not clipped.
    """

    box: NDArray[np.float32]
    score: float
    landmarks: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class YuNetSpec:
    """Sides of the square canvases, in pixels: for all images, and for those with small faces."""

    canvas: int
    small_faces_canvas: int

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> Self:
        """Read `canvas` and `small_faces_canvas`; ValueError names the one that is missing or wrong."""
        return cls(_canvas(parameters, "canvas"), _canvas(parameters, "small_faces_canvas"))

    @property
    def input_size(self) -> int:
        """Longest side that images are resized to, in pixels."""
        return self.canvas

    def preprocess(
        self, image: NDArray[np.uint8], *, small_faces: bool = False
    ) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        """Shrink RGB uint8 [H,W,3] to fit a square canvas, if it does not, and put it at the top-left.

        Returns the canvas uint8 [S,S,3], zero elsewhere as OpenCV pads, and the (height, width) that the
        image covers. One shape for all images lets Triton join requests; a wide image pays for the rest of
        the square. Images are never enlarged: it would add no detail.
        """
        side = self.small_faces_canvas if small_faces else self.canvas
        factor = min(1.0, side / max(image.shape[:2]))
        height, width = (max(1, round(length * factor)) for length in image.shape[:2])
        return images.place(images.resize(image, (height, width)), (side, side)), (height, width)

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
        """Raw heads of one square canvas (OUTPUTS, each [cells, values]) to faces, best first.

        valid_size and original_size are (height, width) of the image on the canvas and of the image itself.
        """
        scores, boxes, landmarks = decode(heads)
        candidates = np.flatnonzero(scores >= min_score)
        candidates = candidates[np.argsort(-scores[candidates], kind="stable")][:MAX_CANDIDATES]
        scores, boxes, landmarks = scores[candidates], boxes[candidates], landmarks[candidates]
        # OpenCV compares faces by whole pixels of the canvas.
        origin, extent = np.trunc(boxes[:, :2]), np.trunc(boxes[:, 2:])
        kept = boxes_.nms(np.concatenate([origin, origin + extent], 1), scores, nms_iou_threshold)

        to_image = np.divide(original_size[::-1], valid_size[::-1], dtype=np.float32)
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
        corners = boxes_.clip(corners * np.tile(to_image, 2), original_size)
        landmarks *= to_image
        faces = (
            DetectedFace(corners[index], float(scores[index]), landmarks[index])
            for index in kept
            # A box that lies in the padding has nothing left.
            if (corners[index, 2:] > corners[index, :2]).all()
        )
        return [face for face, _ in zip(faces, range(max_faces), strict=False)]


def decode(
    heads: Mapping[str, NDArray[np.float32]],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Scores [N], boxes [N,4] (x, y, width, height) and landmarks [N,5,2] of every cell of a square canvas.

    In pixels of the canvas; cells in the order of the strides, then row by row.
    """
    scores, boxes, landmarks = [], [], []
    for stride in STRIDES:
        cls, obj, bbox, kps = (heads[f"{head}_{stride}"] for head in HEADS)
        side = round(len(cls) ** 0.5)
        rows, columns = np.divmod(np.arange(len(cls)), side)
        cells = np.stack([columns, rows], 1).astype(np.float32)
        scores.append(np.sqrt(np.clip(cls[:, 0], 0, 1) * np.clip(obj[:, 0], 0, 1)))
        centre = (cells + bbox[:, :2]) * np.float32(stride)
        # Of no trained network; it keeps an exploding one from infinities.
        extent = np.exp(np.minimum(bbox[:, 2:], np.float32(20))) * np.float32(stride)
        boxes.append(np.concatenate([centre - extent / 2, extent], 1))
        landmarks.append((kps.reshape(-1, 5, 2) + cells[:, None]) * np.float32(stride))
    return np.concatenate(scores), np.concatenate(boxes), np.concatenate(landmarks)


def _canvas(parameters: Mapping[str, str], name: str) -> int:
    text = parameters.get(name)
    if text is None:
        raise ValueError(f"The model has no parameter {name!r}.")
    if not text.isascii() or not text.isdigit() or int(text) < 1 or int(text) % STRIDES[-1]:
        raise ValueError(f"Parameter {name!r} is {text!r}; it must be a multiple of {STRIDES[-1]}.")
    return int(text)

"""Where faces look."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from visiongate.operations.image import ImageLike, box_message, image_message
from visiongate.operations.operation import Operation
from visiongate.v1 import gaze_service_pb2


@dataclass(frozen=True, eq=False, slots=True)
class Face:
    """A face and where it looks.

    box: float32 [4], x_min, y_min, x_max, y_max in pixels of the image.
    yaw, pitch: radians, zero for a gaze into the camera; yaw grows towards the left edge of the image (the
    person's own right), pitch upwards.
    direction: the same as a unit vector float32 [3]: x right, y down, z away from the camera.
    score: 0 to 1, and landmarks: float32 [2] (x, y) by name; both None for a face that the caller gave.
    """

    box: NDArray[np.float32]
    yaw: float
    pitch: float
    direction: NDArray[np.float32]
    score: float | None
    landmarks: Mapping[str, NDArray[np.float32]] | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "box": _rounded(self.box, 2),
            "yaw": round(self.yaw, 5),
            "pitch": round(self.pitch, 5),
            "yaw_degrees": round(math.degrees(self.yaw), 2),
            "pitch_degrees": round(math.degrees(self.pitch), 2),
            "direction": _rounded(self.direction, 5),
            "score": None if self.score is None else round(self.score, 4),
            "landmarks": self.landmarks
            and {name: _rounded(point, 2) for name, point in self.landmarks.items()},
        }


def estimate_gaze(
    image: ImageLike,
    *,
    boxes: ArrayLike | None = None,
    min_score: float | None = None,
    nms_iou_threshold: float | None = None,
    max_faces: int | None = None,
    small_faces: bool = False,
    model: str = "",
    face_detection_model: str = "",
) -> Operation[list[Face]]:
    """Tell where faces look: those found, best first, or those in `boxes` (x_min, y_min, x_max, y_max).

    Thresholds are 0 to 1; where not given, the server's defaults hold. `small_faces` searches the image at
    twice the size.
    """
    request = gaze_service_pb2.EstimateGazeRequest(
        image=image_message(image), model=model, face_detection_model=face_detection_model
    )
    if boxes is not None:
        given = np.asarray(boxes, np.float32)
        if given.ndim != 2 or given.shape[1] != 4 or not len(given):
            raise ValueError(f"boxes are [n, 4], at least one, not {list(given.shape)}")
        about_finding = (
            min_score,
            nms_iou_threshold,
            max_faces,
            small_faces or None,
            face_detection_model or None,
        )
        if any(value is not None for value in about_finding):
            raise ValueError("boxes are faces already: leave out what is about finding them")
        request.boxes.extend(map(box_message, given))
    else:
        request.query.CopyFrom(
            gaze_service_pb2.FaceQuery(
                min_score=min_score,
                nms_iou_threshold=nms_iou_threshold,
                max_faces=max_faces,
                small_faces=small_faces,
            )
        )
    return Operation(
        "/visiongate.v1.GazeService/EstimateGaze",
        request,
        gaze_service_pb2.EstimateGazeResponse,
        lambda response, request_id: [_face(face) for face in response.faces],
    )


def _face(message: gaze_service_pb2.Face) -> Face:
    box, toward = message.box, message.gaze.direction
    landmarks = None
    if message.HasField("landmarks"):
        landmarks = {
            field.name: np.array([point.x, point.y], np.float32)
            for field, point in message.landmarks.ListFields()
        }
    return Face(
        box=np.array([box.x_min, box.y_min, box.x_max, box.y_max], np.float32),
        yaw=message.gaze.yaw,
        pitch=message.gaze.pitch,
        direction=np.array([toward.x, toward.y, toward.z], np.float32),
        score=message.score if message.HasField("score") else None,
        landmarks=landmarks,
    )


def _rounded(values: NDArray[np.float32], digits: int) -> list[float]:
    return [round(float(value), digits) for value in values]

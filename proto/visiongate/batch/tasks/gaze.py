"""Where the faces in each image look."""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from visiongate.batch.task import Task
from visiongate.batch.tasks.making import make
from visiongate.batch.tasks.types import BOX, DIRECTION, POINT, box_value, point_value, struct
from visiongate.operations.gaze import Face, estimate_gaze_batch
from visiongate.v1 import gaze_service_pb2

_LANDMARKS = tuple(field.name for field in gaze_service_pb2.FaceLandmarks.DESCRIPTOR.fields)
# Best first.
_COLUMNS = pa.schema(
    [
        (
            "faces",
            pa.list_(
                struct(
                    score=pa.float32(),
                    box=BOX,
                    # In radians, zero for a look into the camera: see `Face`.
                    yaw=pa.float32(),
                    pitch=pa.float32(),
                    direction=DIRECTION,
                    landmarks=struct(**dict.fromkeys(_LANDMARKS, POINT)),
                )
            ),
        )
    ]
)


def gaze(
    *,
    min_score: float | None = None,
    nms_iou_threshold: float | None = None,
    max_faces: int | None = None,
    small_faces: bool = False,
    gaze_model: str = "",
    face_detection_model: str = "",
) -> Task:
    """Find faces and tell where they look, as `estimate_gaze_batch` does."""
    return make(
        "gaze",
        estimate_gaze_batch,
        {
            "min_score": min_score,
            "nms_iou_threshold": nms_iou_threshold,
            "max_faces": max_faces,
            "small_faces": small_faces,
            "gaze_model": gaze_model,
            "face_detection_model": face_detection_model,
        },
        # The second is a family of the same task.
        models={"gaze": gaze_model, "face_detection": face_detection_model},
        batch_size=16,
        columns=_COLUMNS,
        values=_values,
    )


def _values(faces: Iterable[Face]) -> dict[str, Any]:
    return {
        "faces": [
            {
                "score": face.score,
                "box": box_value(face.box),
                "yaw": face.yaw,
                "pitch": face.pitch,
                "direction": point_value(face.direction),
                "landmarks": face.landmarks
                and {name: point_value(point) for name, point in face.landmarks.items()},
            }
            for face in faces
        ]
    }

"""Where faces look."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from visiongate.answer import Answer
from visiongate.operations import arguments, splitting
from visiongate.operations.answers import read_info, read_list_info
from visiongate.operations.geometry import box_message, read_box, read_point
from visiongate.operations.image import ImageLike, image_message
from visiongate.operations.operation import Operation
from visiongate.v1 import gaze_service_pb2, geometry_pb2


@dataclass(frozen=True, eq=False, slots=True)
class Face:
    """A face and where it looks.

    box: float32 [4], x_min, y_min, x_max, y_max in pixels of the image.
    yaw, pitch: radians, zero for a gaze into the camera; yaw grows towards the left edge of the image (the
    person's own right), pitch upwards.
    direction: the same as a unit vector float32 [3]: x right, y down, z away from the camera.
    score: 0 to 1. landmarks: float32 [2] (x, y) by name. Both are None for a face that the caller gave.
    """

    box: NDArray[np.float32]
    yaw: float
    pitch: float
    direction: NDArray[np.float32]
    score: float | None
    landmarks: Mapping[str, NDArray[np.float32]] | None

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON holds."""
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
    gaze_model: str = "",
    face_detection_model: str = "",
) -> Operation[Answer[Face]]:
    """Tell where faces look: those that are found, best first, or those in `boxes`, in their order.

    A box is x_min, y_min, x_max, y_max in pixels. If `boxes` is given, no other faces are searched for, and
    an empty list gets an empty answer.

    `min_score` is the least score of a face. If two faces overlap by more than `nms_iou_threshold`, only the
    better one stays. Both are 0 to 1, and by default the server's own.

    The answer has at most `max_faces` (100 by default, at most 1000): raise it for crowds. `small_faces`
    searches the image at twice the size. Leave it off for portraits: a face that fills much of the image
    gets false faces beside it.
    """
    query = _face_query(min_score, nms_iou_threshold, max_faces, small_faces)
    keywords: dict[str, Any] = {
        "image": image_message(image),
        "gaze_model": arguments.text(gaze_model, "gaze_model"),
        "face_detection_model": arguments.text(face_detection_model, "face_detection_model"),
        "include_timings": True,
    }
    if boxes is None:
        keywords["query"] = query
    else:
        search_options = [field.name for field, _ in query.ListFields()]
        search_options += ["face_detection_model"] if face_detection_model else []
        if search_options:
            raise ValueError(f"boxes are faces that are found already: leave out {', '.join(search_options)}")
        keywords["boxes"] = _box_list(boxes)
    return Operation(
        "/visiongate.v1.GazeService/EstimateGaze",
        gaze_service_pb2.EstimateGazeRequest(**keywords),
        gaze_service_pb2.EstimateGazeResponse,
        _read,
    )


def estimate_gaze_batch(
    images: Iterable[ImageLike],
    *,
    min_score: float | None = None,
    nms_iou_threshold: float | None = None,
    max_faces: int | None = None,
    small_faces: bool = False,
    gaze_model: str = "",
    face_detection_model: str = "",
    strict: bool = True,
) -> Operation[Answer[list[Face]]]:
    """Tell where the faces in many images look: for each image what `estimate_gaze` finds, without boxes.

    An image that cannot be used fails the call. With `strict=False` it has no faces, and the answer's
    `errors` say why.

    A list that is too long for one request is sent in several; all images are held in memory.
    """
    keywords: dict[str, Any] = {
        "query": _face_query(min_score, nms_iou_threshold, max_faces, small_faces),
        "gaze_model": arguments.text(gaze_model, "gaze_model"),
        "face_detection_model": arguments.text(face_detection_model, "face_detection_model"),
        "include_timings": True,
        "strict": arguments.flag(strict, "strict"),
    }
    request, more = splitting.requests(
        lambda part: gaze_service_pb2.BatchEstimateGazeRequest(images=part, **keywords),
        arguments.images(images),
        lambda image: 1 / splitting.MAX_IMAGES,
    )
    return Operation(
        "/visiongate.v1.GazeService/BatchEstimateGaze",
        request,
        gaze_service_pb2.BatchEstimateGazeResponse,
        lambda response, request_id: Answer(
            (list(map(_face, result.found.faces)) for result in response.results),
            read_list_info(
                response,
                request_id,
                model=response.gaze_model,
                detection_model=response.face_detection_model,
            ),
        ),
        more,
        list_name="images",
    )


def _face_query(
    min_score: float | None, nms_iou_threshold: float | None, max_faces: int | None, small_faces: bool
) -> gaze_service_pb2.FaceQuery:
    return gaze_service_pb2.FaceQuery(
        min_score=arguments.fraction(min_score, "min_score"),
        nms_iou_threshold=arguments.fraction(nms_iou_threshold, "nms_iou_threshold"),
        max_faces=arguments.whole_number(max_faces, "max_faces", 1),
        small_faces=arguments.flag(small_faces, "small_faces"),
    )


def _box_list(boxes: ArrayLike) -> geometry_pb2.BoxList:
    messages = []
    for index, box in enumerate(arguments.boxes(boxes, "boxes")):
        if box is None:
            raise TypeError(f"boxes[{index}] is None: leave such faces out")
        messages.append(box_message(box))
    return geometry_pb2.BoxList(boxes=messages)


def _read(response: gaze_service_pb2.EstimateGazeResponse, request_id: str) -> Answer[Face]:
    info = read_info(
        response,
        request_id,
        [response.image],
        model=response.gaze_model,
        detection_model=response.face_detection_model,
    )
    return Answer(map(_face, response.faces), info)


def _face(message: gaze_service_pb2.Face) -> Face:
    direction = message.gaze.direction
    landmarks = None
    if message.HasField("landmarks"):
        landmarks = {field.name: read_point(point) for field, point in message.landmarks.ListFields()}
    return Face(
        box=read_box(message.box),
        yaw=message.gaze.yaw,
        pitch=message.gaze.pitch,
        direction=np.array([direction.x, direction.y, direction.z], np.float32),
        score=message.score if message.HasField("score") else None,
        landmarks=landmarks,
    )


def _rounded(values: NDArray[np.float32], digits: int) -> list[float]:
    return [round(float(value), digits) for value in values]

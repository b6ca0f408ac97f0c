"""GazeService: protobuf in, `GazeEstimator`, protobuf out."""

import numpy as np
from numpy.typing import NDArray

from gateway import messages
from gateway.errors import InvalidArgumentError
from gateway.models import gaze
from gateway.models.face_detection import LANDMARKS, DetectedFace
from gateway.pipelines.core import Call, Core
from gateway.pipelines.gaze import FACE_DETECTION, GAZE, FaceQuery, GazeEstimator
from gateway.services.service import Context, Service
from visiongate.v1 import gaze_service_pb2, gaze_service_pb2_grpc, image_pb2

DEFAULT_MIN_SCORE = 0.6
DEFAULT_NMS_IOU_THRESHOLD = 0.3
DEFAULT_MAX_FACES = 100
MAX_FACES = 1000


class GazeService(gaze_service_pb2_grpc.GazeServiceServicer):
    """Where faces look."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._estimator = GazeEstimator(core)

    async def EstimateGaze(  # noqa: N802
        self, request: gaze_service_pb2.EstimateGazeRequest, context: Context
    ) -> gaze_service_pb2.EstimateGazeResponse:
        call = Call()
        faces_given = bool(request.boxes) or request.only_boxes
        if faces_given and request.HasField("query"):
            raise InvalidArgumentError(
                "boxes" if request.boxes else "only_boxes", "says that faces are known: leave query out"
            )
        if len(request.boxes) > MAX_FACES:
            raise InvalidArgumentError("boxes", f"has {len(request.boxes)} boxes; the limit is {MAX_FACES}")
        query = _face_query(request.query)
        model = self._estimator.choose(request.model)
        finder = None if faces_given else self._estimator.choose_finder(request.face_detection_model)
        source = messages.image_source(request.image, self._core.settings)
        image = await self._core.load_image(source, call)
        if finder is None:
            boxes = [
                messages.box_array(box, image, f"boxes[{index}]") for index, box in enumerate(request.boxes)
            ]
            gazes = await self._estimator.estimate(image, boxes, model, call)
            faces = [
                gaze_service_pb2.Face(box=box, gaze=_gaze_message(yaw_pitch))
                for box, yaw_pitch in zip(request.boxes, gazes, strict=True)
            ]
        else:
            found = await self._estimator.find_and_estimate(image, query, finder, model, call)
            faces = [_face_message(face, yaw_pitch) for face, yaw_pitch in found]
        return gaze_service_pb2.EstimateGazeResponse(
            faces=faces,
            image=messages.image_message(image),
            timings=messages.timings_message(call, request.include_timings),
            model=model.name,
            face_detection_model=finder.name if finder else "",
        )


SERVICE = Service(
    gaze_service_pb2.DESCRIPTOR.services_by_name["GazeService"].full_name,
    (GAZE,),
    lambda core, server: gaze_service_pb2_grpc.add_GazeServiceServicer_to_server(GazeService(core), server),
    optional=(FACE_DETECTION,),
)


def _face_query(query: gaze_service_pb2.FaceQuery) -> FaceQuery:
    """What to find, with defaults filled in."""
    max_faces = query.max_faces if query.HasField("max_faces") else DEFAULT_MAX_FACES
    if not 1 <= max_faces <= MAX_FACES:
        raise InvalidArgumentError("query.max_faces", f"is {max_faces}; it must be 1 to {MAX_FACES}")
    min_score = query.min_score if query.HasField("min_score") else DEFAULT_MIN_SCORE
    nms_iou_threshold = (
        query.nms_iou_threshold if query.HasField("nms_iou_threshold") else DEFAULT_NMS_IOU_THRESHOLD
    )
    for name, value in (("min_score", min_score), ("nms_iou_threshold", nms_iou_threshold)):
        messages.check_fraction(value, f"query.{name}")
    return FaceQuery(min_score, nms_iou_threshold, max_faces, query.small_faces)


def _face_message(face: DetectedFace, yaw_pitch: NDArray[np.float32]) -> gaze_service_pb2.Face:
    x_min, y_min, x_max, y_max = map(float, face.box)
    points = {
        name: image_pb2.Point(x=float(x), y=float(y))
        for name, (x, y) in zip(LANDMARKS, face.landmarks, strict=True)
    }
    return gaze_service_pb2.Face(
        box=image_pb2.Box(x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max),
        score=face.score,
        landmarks=gaze_service_pb2.FaceLandmarks(**points),
        gaze=_gaze_message(yaw_pitch),
    )


def _gaze_message(yaw_pitch: NDArray[np.float32]) -> gaze_service_pb2.Gaze:
    yaw, pitch = map(float, yaw_pitch)
    x, y, z = map(float, gaze.direction(yaw_pitch))
    return gaze_service_pb2.Gaze(yaw=yaw, pitch=pitch, direction=gaze_service_pb2.Direction(x=x, y=y, z=z))

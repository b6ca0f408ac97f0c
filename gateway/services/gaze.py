"""GazeService: protobuf in, `GazeEstimator`, protobuf out."""

import numpy as np
from numpy.typing import NDArray

from gateway.catalog import Variant
from gateway.errors import NoModelError
from gateway.models import gaze
from gateway.models.face_detection import LANDMARKS, DetectedFace, YuNetSpec
from gateway.pipelines.gaze import FACE_DETECTION, GAZE, FaceQuery, GazeEstimator
from gateway.pipelines.resources import Resources
from gateway.services.messages.checks import FRACTION, Range, check_count, optional
from gateway.services.messages.fields import field
from gateway.services.messages.geometry import box_array, box_message, point_message
from gateway.services.messages.images import image_message, load_image
from gateway.services.messages.timings import timings_message
from gateway.services.service import Context, Service
from gateway.settings import Settings
from visiongate.v1 import gaze_service_pb2, gaze_service_pb2_grpc

DEFAULT_MIN_SCORE = 0.6
DEFAULT_NMS_IOU_THRESHOLD = 0.3
DEFAULT_MAX_FACES = 100


class GazeService(gaze_service_pb2_grpc.GazeServiceServicer):
    """Where faces look."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._estimator = GazeEstimator(resources)

    async def EstimateGaze(  # noqa: N802
        self, request: gaze_service_pb2.EstimateGazeRequest, context: Context
    ) -> gaze_service_pb2.EstimateGazeResponse:
        resources = self._resources
        known_boxes = request.boxes.boxes
        check_count(len(known_boxes), resources.settings.max_faces, "boxes.boxes", "boxes")
        query = _face_query(request.query, resources.settings)
        with field("gaze_model"):
            gaze_model = resources.catalog.choose(GAZE, request.gaze_model)
        face_detection_model = None if request.HasField("boxes") else self._choose_face_detection(request)
        image = await load_image(request.image, resources.images, resources.settings)
        if face_detection_model is None:
            boxes = [box_array(box, image, f"boxes.boxes[{index}]") for index, box in enumerate(known_boxes)]
            gazes = await self._estimator.estimate(image, boxes, gaze_model)
            faces = [
                gaze_service_pb2.Face(box=box, gaze=_gaze_message(yaw_pitch))
                for box, yaw_pitch in zip(known_boxes, gazes, strict=True)
            ]
        else:
            detected = await self._estimator.find_and_estimate(image, query, face_detection_model, gaze_model)
            faces = [_face_message(face, yaw_pitch) for face, yaw_pitch in detected]
        return gaze_service_pb2.EstimateGazeResponse(
            faces=faces,
            image=image_message(image),
            timings=timings_message(request.include_timings),
            gaze_model=gaze_model.name,
            face_detection_model=face_detection_model.name if face_detection_model else "",
        )

    def _choose_face_detection(self, request: gaze_service_pb2.EstimateGazeRequest) -> Variant[YuNetSpec]:
        catalog = self._resources.catalog
        if not catalog.has(FACE_DETECTION):
            raise NoModelError("finding faces: give their boxes")
        with field("face_detection_model"):
            return catalog.choose(FACE_DETECTION, request.face_detection_model)


SERVICE = Service(
    gaze_service_pb2.DESCRIPTOR,
    GazeService,
    gaze_service_pb2_grpc.add_GazeServiceServicer_to_server,
    (GAZE,),
    optional=(FACE_DETECTION,),
)


def _face_query(query: gaze_service_pb2.FaceQuery, settings: Settings) -> FaceQuery:
    """Return what to find, with defaults filled in."""
    min_score = optional(query, "min_score", FRACTION, "query.")
    nms_iou_threshold = optional(query, "nms_iou_threshold", FRACTION, "query.")
    default = min(DEFAULT_MAX_FACES, settings.max_faces)
    max_faces = query.max_faces if query.HasField("max_faces") else default
    return FaceQuery(
        DEFAULT_MIN_SCORE if min_score is None else min_score,
        DEFAULT_NMS_IOU_THRESHOLD if nms_iou_threshold is None else nms_iou_threshold,
        Range(1, settings.max_faces).check(max_faces, "query.max_faces"),
        query.small_faces,
    )


def _face_message(face: DetectedFace, yaw_pitch: NDArray[np.float32]) -> gaze_service_pb2.Face:
    points = {name: point_message(point) for name, point in zip(LANDMARKS, face.landmarks, strict=True)}
    return gaze_service_pb2.Face(
        box=box_message(face.box),
        score=face.score,
        landmarks=gaze_service_pb2.FaceLandmarks(**points),
        gaze=_gaze_message(yaw_pitch),
    )


def _gaze_message(yaw_pitch: NDArray[np.float32]) -> gaze_service_pb2.Gaze:
    yaw, pitch = map(float, yaw_pitch)
    x, y, z = map(float, gaze.direction(yaw_pitch))
    return gaze_service_pb2.Gaze(yaw=yaw, pitch=pitch, direction=gaze_service_pb2.Direction(x=x, y=y, z=z))

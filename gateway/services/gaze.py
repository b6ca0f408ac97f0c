"""GazeService: protobuf in, `GazeEstimator`, protobuf out."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gateway.admission import weigh
from gateway.catalog import Variant
from gateway.errors import InputError, NoModelError
from gateway.models import gaze
from gateway.models.face_detection import LANDMARKS, DetectedFace, YuNetSpec
from gateway.pipelines.gaze import FACE_DETECTION, GAZE, FaceQuery, FoundFace, GazeEstimator
from gateway.pipelines.image_lists import Found
from gateway.pipelines.items import usable
from gateway.pipelines.resources import Resources
from gateway.services.messages.checks import FRACTION, Range, check_count, optional
from gateway.services.messages.fields import PathOf, field, item_error
from gateway.services.messages.geometry import box_array, box_message, point_message
from gateway.services.messages.images import (
    image_message,
    image_paths,
    image_paths_of_one,
    image_sources,
    load_image,
)
from gateway.services.messages.lists import IMAGES_OF_A_PLACE, found_count
from gateway.services.messages.timings import timings_message
from gateway.services.service import Context, Service
from gateway.settings import Settings
from visiongate.v1 import gaze_service_pb2, gaze_service_pb2_grpc, image_pb2

Request = gaze_service_pb2.EstimateGazeRequest | gaze_service_pb2.BatchEstimateGazeRequest

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
        if request.HasField("boxes"):
            return await self._estimate_in_boxes(request)
        path = image_paths_of_one(request.image)
        models, items = await self._find_and_estimate(request, [request.image], path, True)
        (found,) = usable(items)
        return gaze_service_pb2.EstimateGazeResponse(
            faces=[_face_message(face, yaw_pitch) for face, yaw_pitch in found.items],
            image=image_message(found.image),
            timings=timings_message(request.include_timings),
            **models,
        )

    async def BatchEstimateGaze(  # noqa: N802
        self, request: gaze_service_pb2.BatchEstimateGazeRequest, context: Context
    ) -> gaze_service_pb2.BatchEstimateGazeResponse:
        check_count(len(request.images), self._resources.settings.max_images, "images", "images")
        weigh(len(request.images), IMAGES_OF_A_PLACE)
        path = image_paths(request.images, "images")
        models, items = await self._find_and_estimate(request, request.images, path, request.strict)

        def response() -> gaze_service_pb2.BatchEstimateGazeResponse:
            return gaze_service_pb2.BatchEstimateGazeResponse(
                results=[_result(item, path(index)) for index, item in enumerate(items)],
                timings=timings_message(request.include_timings),
                **models,
            )

        return await self._resources.threads.run_if_large(found_count(items), response)

    async def _estimate_in_boxes(
        self, request: gaze_service_pb2.EstimateGazeRequest
    ) -> gaze_service_pb2.EstimateGazeResponse:
        """Answer a request that gives the faces."""
        resources, known_boxes = self._resources, request.boxes.boxes
        check_count(len(known_boxes), resources.settings.max_faces, "boxes.boxes", "boxes")
        with field("gaze_model"):
            gaze_model = resources.catalog.choose(GAZE, request.gaze_model)
        image = await load_image(request.image, resources.images, resources.settings)
        boxes = [box_array(box, image, f"boxes.boxes[{index}]") for index, box in enumerate(known_boxes)]
        gazes = await self._estimator.estimate(image, boxes, gaze_model)
        return gaze_service_pb2.EstimateGazeResponse(
            faces=[
                gaze_service_pb2.Face(box=box, gaze=_gaze_message(yaw_pitch))
                for box, yaw_pitch in zip(known_boxes, gazes, strict=True)
            ],
            image=image_message(image),
            timings=timings_message(request.include_timings),
            gaze_model=gaze_model.name,
        )

    async def _find_and_estimate(
        self, request: Request, images: Sequence[image_pb2.Image], path: PathOf, strict: bool
    ) -> tuple[dict[str, str], list[Found[FoundFace] | InputError]]:
        """Return the names of the models by their fields, and the faces of each image."""
        settings = self._resources.settings
        query = _face_query(request.query, settings)
        with field("gaze_model"):
            gaze_model = self._resources.catalog.choose(GAZE, request.gaze_model)
        face_detection_model = self._choose_face_detection(request)
        with field(path):
            items = await self._estimator.find_and_estimate_each(
                image_sources(images, settings), query, face_detection_model, gaze_model, strict=strict
            )
        return {"gaze_model": gaze_model.name, "face_detection_model": face_detection_model.name}, items

    def _choose_face_detection(self, request: Request) -> Variant[YuNetSpec]:
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


def _result(item: Found[FoundFace] | InputError, path: str) -> gaze_service_pb2.BatchEstimateGazeResult:
    if isinstance(item, InputError):
        return gaze_service_pb2.BatchEstimateGazeResult(error=item_error(item, path))
    faces = gaze_service_pb2.FaceList(
        faces=[_face_message(face, yaw_pitch) for face, yaw_pitch in item.items]
    )
    return gaze_service_pb2.BatchEstimateGazeResult(found=faces, image=image_message(item.image))


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

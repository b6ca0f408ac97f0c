"""DetectionService: protobuf in, `Detector`, protobuf out."""

from collections.abc import Sequence

from gateway.admission import weigh
from gateway.catalog import Variant
from gateway.errors import InputError
from gateway.models.grounding_dino import Detection, GroundingDinoSpec
from gateway.pipelines.detection import GROUNDING_DINO, Detector
from gateway.pipelines.image_lists import Found
from gateway.pipelines.items import usable
from gateway.pipelines.resources import Resources
from gateway.services.messages.checks import check_count
from gateway.services.messages.detections import detection_message, object_query, words_path
from gateway.services.messages.fields import PathOf, field, item_error
from gateway.services.messages.images import image_message, image_paths, image_paths_of_one, image_sources
from gateway.services.messages.lists import IMAGES_OF_A_PLACE, found_count
from gateway.services.messages.timings import timings_message
from gateway.services.service import Context, Service
from visiongate.v1 import detection_service_pb2, detection_service_pb2_grpc, image_pb2

Request = detection_service_pb2.DetectObjectsRequest | detection_service_pb2.BatchDetectObjectsRequest


class DetectionService(detection_service_pb2_grpc.DetectionServiceServicer):
    """Objects that words name."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._detector = Detector(resources)

    async def DetectObjects(  # noqa: N802
        self, request: detection_service_pb2.DetectObjectsRequest, context: Context
    ) -> detection_service_pb2.DetectObjectsResponse:
        model, items = await self._detect(request, [request.image], image_paths_of_one(request.image), True)
        (found,) = usable(items)

        def response() -> detection_service_pb2.DetectObjectsResponse:
            return detection_service_pb2.DetectObjectsResponse(
                detections=map(detection_message, found.items),
                image=image_message(found.image),
                timings=timings_message(request.include_timings),
                model=model.name,
            )

        return await self._resources.threads.run_if_large(len(found.items), response)

    async def BatchDetectObjects(  # noqa: N802
        self, request: detection_service_pb2.BatchDetectObjectsRequest, context: Context
    ) -> detection_service_pb2.BatchDetectObjectsResponse:
        check_count(len(request.images), self._resources.settings.max_images, "images", "images")
        weigh(len(request.images), IMAGES_OF_A_PLACE)
        path = image_paths(request.images, "images")
        model, items = await self._detect(request, request.images, path, request.strict)

        def response() -> detection_service_pb2.BatchDetectObjectsResponse:
            return detection_service_pb2.BatchDetectObjectsResponse(
                results=[_result(item, path(index)) for index, item in enumerate(items)],
                timings=timings_message(request.include_timings),
                model=model.name,
            )

        return await self._resources.threads.run_if_large(found_count(items), response)

    async def _detect(
        self, request: Request, images: Sequence[image_pb2.Image], path: PathOf, strict: bool
    ) -> tuple[Variant[GroundingDinoSpec], list[Found[Detection] | InputError]]:
        """Return the model that the request chooses, and what it finds in each image."""
        settings = self._resources.settings
        query = object_query(request.query, settings)
        with field("model"):
            model = self._resources.catalog.choose(GROUNDING_DINO, request.model)
        with field(words_path(request.query)):
            text = await self._detector.read(query, model)
        sources = image_sources(images, settings)
        with field(path):
            return model, await self._detector.detect_each(sources, text, query, model, strict=strict)


SERVICE = Service(
    detection_service_pb2.DESCRIPTOR,
    DetectionService,
    detection_service_pb2_grpc.add_DetectionServiceServicer_to_server,
    (GROUNDING_DINO,),
)


def _result(item: Found[Detection] | InputError, path: str) -> detection_service_pb2.BatchDetectObjectsResult:
    if isinstance(item, InputError):
        return detection_service_pb2.BatchDetectObjectsResult(error=item_error(item, path))
    detections = detection_service_pb2.DetectionList(detections=map(detection_message, item.items))
    return detection_service_pb2.BatchDetectObjectsResult(found=detections, image=image_message(item.image))

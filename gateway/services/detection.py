"""DetectionService: protobuf in, `Detector`, protobuf out."""

from gateway.pipelines.detection import GROUNDING_DINO, Detector
from gateway.pipelines.resources import Resources
from gateway.services.messages.detections import detection_message, object_query, words_path
from gateway.services.messages.fields import field
from gateway.services.messages.images import image_message, load_image
from gateway.services.messages.timings import timings_message
from gateway.services.service import Context, Service
from visiongate.v1 import detection_service_pb2, detection_service_pb2_grpc


class DetectionService(detection_service_pb2_grpc.DetectionServiceServicer):
    """Objects that words name."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._detector = Detector(resources)

    async def DetectObjects(  # noqa: N802
        self, request: detection_service_pb2.DetectObjectsRequest, context: Context
    ) -> detection_service_pb2.DetectObjectsResponse:
        resources = self._resources
        query = object_query(request.query, resources.settings)
        with field("model"):
            model = resources.catalog.choose(GROUNDING_DINO, request.model)
        with field(words_path(request.query)):
            text = await self._detector.read(query, model)
        image = await load_image(request.image, resources.images, resources.settings)
        detections = await self._detector.detect(image, text, query, model)
        return detection_service_pb2.DetectObjectsResponse(
            detections=map(detection_message, detections),
            image=image_message(image),
            timings=timings_message(request.include_timings),
            model=model.name,
        )


SERVICE = Service(
    detection_service_pb2.DESCRIPTOR,
    DetectionService,
    detection_service_pb2_grpc.add_DetectionServiceServicer_to_server,
    (GROUNDING_DINO,),
)

"""DetectionService: protobuf in, `Detector`, protobuf out."""

from gateway import messages
from gateway.pipelines.core import Call, Core
from gateway.pipelines.detection import GROUNDING_DINO, Detector
from gateway.services.service import Context, Service
from visiongate.v1 import detection_service_pb2, detection_service_pb2_grpc


class DetectionService(detection_service_pb2_grpc.DetectionServiceServicer):
    """Objects that words name."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._detector = Detector(core)

    async def DetectObjects(  # noqa: N802
        self, request: detection_service_pb2.DetectObjectsRequest, context: Context
    ) -> detection_service_pb2.DetectObjectsResponse:
        call = Call()
        query = messages.object_query(request.query, self._core.settings)
        model = self._detector.choose(request.model)
        source = messages.image_source(request.image, self._core.settings)
        image = await self._core.load_image(source, call)
        detections = await self._detector.detect(image, query, model, call)
        return detection_service_pb2.DetectObjectsResponse(
            detections=map(messages.detection_message, detections),
            image=messages.image_message(image),
            timings=messages.timings_message(call, request.include_timings),
            model=model.name,
        )


SERVICE = Service(
    detection_service_pb2.DESCRIPTOR.services_by_name["DetectionService"].full_name,
    (GROUNDING_DINO,),
    lambda core, server: detection_service_pb2_grpc.add_DetectionServiceServicer_to_server(
        DetectionService(core), server
    ),
)

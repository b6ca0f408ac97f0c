"""DetectionService: protobuf in, `Pipelines.detect`, protobuf out."""

from typing import Any

import grpc.aio

from gateway import messages
from gateway.pipelines import Call, Pipelines
from gateway.settings import Settings
from visiongate.v1 import detection_service_pb2, detection_service_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class DetectionService(detection_service_pb2_grpc.DetectionServiceServicer):
    """Objects that words name."""

    def __init__(self, pipelines: Pipelines, settings: Settings) -> None:
        self._pipelines = pipelines
        self._settings = settings

    async def DetectObjects(  # noqa: N802
        self, request: detection_service_pb2.DetectObjectsRequest, context: Context
    ) -> detection_service_pb2.DetectObjectsResponse:
        call = Call()
        query = messages.object_query(request.query)
        source = messages.image_source(request.image, self._settings)
        image = await self._pipelines.load_image(source, call)
        detections = await self._pipelines.detect(image, query, request.model, call)
        return detection_service_pb2.DetectObjectsResponse(
            detections=map(messages.detection_message, detections),
            image=messages.image_message(image),
            timings=messages.timings_message(call, request.include_timings),
        )

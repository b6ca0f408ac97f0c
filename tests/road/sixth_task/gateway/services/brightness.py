"""BrightnessService: protobuf in, `BrightnessMeter`, protobuf out."""

from gateway.pipelines.brightness import BRIGHTNESS, BrightnessMeter
from gateway.pipelines.resources import Resources
from gateway.services.messages.fields import field
from gateway.services.messages.images import image_message, load_image
from gateway.services.messages.timings import timings_message
from gateway.services.service import Context, Service
from visiongate.v1 import brightness_service_pb2, brightness_service_pb2_grpc


class BrightnessService(brightness_service_pb2_grpc.BrightnessServiceServicer):
    """How bright images are."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._meter = BrightnessMeter(resources)

    async def MeasureBrightness(  # noqa: N802
        self, request: brightness_service_pb2.MeasureBrightnessRequest, context: Context
    ) -> brightness_service_pb2.MeasureBrightnessResponse:
        resources = self._resources
        with field("model"):
            model = resources.catalog.choose(BRIGHTNESS, request.model)
        image = await load_image(request.image, resources.images, resources.settings)
        return brightness_service_pb2.MeasureBrightnessResponse(
            brightness=await self._meter.measure(image, model),
            image=image_message(image),
            timings=timings_message(request.include_timings),
            model=model.name,
        )


SERVICE = Service(
    brightness_service_pb2.DESCRIPTOR,
    BrightnessService,
    brightness_service_pb2_grpc.add_BrightnessServiceServicer_to_server,
    (BRIGHTNESS,),
)

"""How bright an image is."""

from dataclasses import dataclass
from typing import Any

from visiongate.answer import AnswerInfo
from visiongate.operations import arguments
from visiongate.operations.answers import read_info
from visiongate.operations.image import ImageLike, image_message
from visiongate.operations.operation import Operation
from visiongate.v1 import brightness_service_pb2


@dataclass(frozen=True, slots=True)
class Brightness:
    """The mean brightness of an image, 0 (black) to 1 (white), and what came with the answer."""

    value: float
    info: AnswerInfo

    def as_dict(self) -> dict[str, Any]:
        """Return the brightness for JSON."""
        return {"brightness": round(self.value, 6)}


def measure_brightness(image: ImageLike, *, model: str = "") -> Operation[Brightness]:
    """Measure the mean brightness of an image."""
    return Operation(
        "/visiongate.v1.BrightnessService/MeasureBrightness",
        brightness_service_pb2.MeasureBrightnessRequest(
            image=image_message(image), model=arguments.text(model, "model"), include_timings=True
        ),
        brightness_service_pb2.MeasureBrightnessResponse,
        _read,
    )


def _read(response: brightness_service_pb2.MeasureBrightnessResponse, request_id: str) -> Brightness:
    return Brightness(response.brightness, read_info(response, request_id, [response.image]))

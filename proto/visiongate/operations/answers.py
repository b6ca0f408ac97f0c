"""What every response carries, to `AnswerInfo`."""

from collections.abc import Iterable
from typing import Any

from visiongate.answer import AnswerInfo, ImageInfo, Timings
from visiongate.v1 import image_pb2


def read_info(
    response: Any,
    request_id: str,
    images: Iterable[image_pb2.ImageInfo] = (),
    *,
    model: str | None = None,
    detection_model: str = "",
) -> AnswerInfo:
    """What came with a response; images and models are where the method has them, `model` if not there."""
    return AnswerInfo(
        request_id=request_id,
        model=response.model if model is None else model,
        detection_model=detection_model,
        images=tuple(ImageInfo(image.image_id, image.width, image.height) for image in images),
        timings=_read_timings(response.timings) if response.HasField("timings") else None,
    )


def _read_timings(message: image_pb2.Timings) -> Timings:
    return Timings(message.decode_ms, message.preprocess_ms, message.inference_ms, message.postprocess_ms)

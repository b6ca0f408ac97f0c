"""What responses carry beside their results: to `AnswerInfo`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from visiongate.answer import AnswerInfo, ImageInfo, Timings
from visiongate.errors import VisiongateError
from visiongate.status import read_item_error
from visiongate.v1 import image_pb2, timings_pb2


def read_info(
    response: Any,
    request_id: str,
    images: Iterable[image_pb2.ImageInfo | None] = (),
    *,
    model: str | None = None,
    detection_model: str = "",
    errors: Mapping[int, VisiongateError] | None = None,
    subject_image: image_pb2.ImageInfo | None = None,
) -> AnswerInfo:
    """Read what comes with a response.

    `images` are where the method has them, and so is `model` if it is not in `response.model`.
    """
    return AnswerInfo(
        request_id=request_id,
        model=response.model if model is None else model,
        detection_model=detection_model,
        images=tuple(map(_image, images)),
        timings=_timings(response.timings) if response.HasField("timings") else None,
        errors=errors or {},
        subject_image=_image(subject_image),
    )


def read_list_info(
    response: Any, request_id: str, *, model: str | None = None, detection_model: str = ""
) -> AnswerInfo:
    """Read what comes with the response to a list of images."""
    return read_info(
        response,
        request_id,
        item_images(response.results),
        model=model,
        detection_model=detection_model,
        errors=read_errors(response.results, "images", request_id),
    )


def item_info(info: AnswerInfo, index: int) -> AnswerInfo:
    """Return what comes with the result of one image of a list, which has several results itself."""
    return AnswerInfo(
        request_id=info.request_id,
        model=info.model,
        detection_model=info.detection_model,
        images=info.images[index : index + 1],
        errors={0: info.errors[index]} if index in info.errors else {},
    )


def item_images(items: Iterable[Any]) -> list[image_pb2.ImageInfo | None]:
    """Return the image of each item of a list, None for a text or an error."""
    return [item.image if item.HasField("image") else None for item in items]


def read_errors(results: Sequence[Any], list_name: str, request_id: str) -> dict[int, VisiongateError]:
    """Read the errors among the results of a list by their index; `list_name` is the request's field."""
    return {
        index: read_item_error(result.error, list_name, index, request_id)
        for index, result in enumerate(results)
        if result.HasField("error")
    }


def _image(message: image_pb2.ImageInfo | None) -> ImageInfo | None:
    return None if message is None else ImageInfo(message.image_id, message.width, message.height)


def _timings(message: timings_pb2.Timings) -> Timings:
    return Timings(message.decode_ms, message.preprocess_ms, message.inference_ms, message.postprocess_ms)

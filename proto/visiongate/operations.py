"""The client's methods, without the sending: arguments to a request, a response to results.

The sync and the asyncio client are both made from these, so that they cannot differ.
"""

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from google.protobuf.message import Message
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageOps
from pycocotools import mask as coco

from visiongate.results import Detection, EncodedImage, ImageId, Mask, Model, SegmentedObject
from visiongate.v1 import (
    detection_service_pb2,
    image_pb2,
    model_service_pb2,
    segmentation_service_pb2,
)

Result = TypeVar("Result")

ImageLike = str | os.PathLike[str] | bytes | NDArray[np.uint8] | Image.Image | EncodedImage
"""A path, the bytes of an image file, RGB or grey uint8 pixels [H, W(, 3)], a Pillow image, or an image
that the server keeps."""


PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})


@dataclass(frozen=True, slots=True)
class Operation(Generic[Result]):
    """One call: the method's full name, its request, how to read the response."""

    method: str
    request: Message
    response_type: type[Message]
    parse: Callable[[Any], Result]


def detect(
    image: ImageLike,
    phrases: Sequence[str] = (),
    *,
    caption: str = "",
    box_threshold: float | None = None,
    text_threshold: float | None = None,
    nms_iou_threshold: float | None = None,
    max_detections: int | None = None,
    model: str = "",
) -> Operation[list[Detection]]:
    """Find the objects that phrases (a list of classes) or a caption (free text) name, best first.

    Thresholds are 0 to 1; where not given, the server's defaults hold.
    """
    query = _query(phrases, caption, box_threshold, text_threshold, nms_iou_threshold, max_detections)
    return Operation(
        "/visiongate.v1.DetectionService/DetectObjects",
        detection_service_pb2.DetectObjectsRequest(image=_image(image), query=query, model=model),
        detection_service_pb2.DetectObjectsResponse,
        lambda response: [_detection(detection) for detection in response.detections],
    )


def segment_phrases(
    image: ImageLike,
    phrases: Sequence[str] = (),
    *,
    caption: str = "",
    box_threshold: float | None = None,
    text_threshold: float | None = None,
    nms_iou_threshold: float | None = None,
    max_detections: int | None = None,
    detection_model: str = "",
    segmentation_model: str = "",
) -> Operation[list[SegmentedObject]]:
    """Find the objects that words name, as `detect`, and cut each of them out."""
    query = _query(phrases, caption, box_threshold, text_threshold, nms_iou_threshold, max_detections)
    return Operation(
        "/visiongate.v1.SegmentationService/SegmentPhrases",
        segmentation_service_pb2.SegmentPhrasesRequest(
            image=_image(image),
            query=query,
            mask_format=segmentation_service_pb2.MASK_FORMAT_RLE,
            detection_model=detection_model,
            segmentation_model=segmentation_model,
        ),
        segmentation_service_pb2.SegmentPhrasesResponse,
        lambda response: [
            SegmentedObject(_detection(item.detection), _mask(item.mask)) for item in response.objects
        ],
    )


def segment(
    image: ImageLike,
    *,
    boxes: ArrayLike | None = None,
    points: Sequence[ArrayLike] | None = None,
    labels: Sequence[ArrayLike] | None = None,
    mask_logits: Sequence[ArrayLike] | None = None,
    multimask: bool = False,
    include_logits: bool = False,
    model: str = "",
) -> Operation[list[list[Mask]]]:
    """Cut out what prompts point at: for each prompt one mask, or with `multimask` three, best first.

    Prompt i has boxes[i] (x_min, y_min, x_max, y_max), points[i] (a list of x, y) with labels[i]
    (1 on the object, 0 off it; by default all on it), and mask_logits[i] (the logits of an earlier
    mask), as far as they are given. All coordinates are pixels of the image.
    """
    given = [list(values) for values in (boxes, points, mask_logits) if values is not None]  # type: ignore[arg-type]
    counts = {len(values) for values in given}
    if len(counts) != 1:
        raise ValueError(
            "give boxes or points, and as many of each as there are prompts"
            if given
            else "give boxes or points: what is to be cut out"
        )
    (count,) = counts
    prompts = [segmentation_service_pb2.Prompt() for _ in range(count)]
    for index, prompt in enumerate(prompts):
        if boxes is not None:
            prompt.box.CopyFrom(_box_message(np.asarray(boxes, np.float32)[index]))
        if points is not None:
            places = np.asarray(points[index], np.float32).reshape(-1, 2)
            marks = np.ones(len(places)) if labels is None else np.asarray(labels[index]).ravel()
            if len(marks) != len(places):
                raise ValueError(f"prompt {index} has {len(places)} points but {len(marks)} labels")
            prompt.points.extend(
                _point_message(x, y, bool(mark)) for (x, y), mark in zip(places, marks, strict=True)
            )
        if mask_logits is not None:
            logits = np.asarray(mask_logits[index], "<f4")
            prompt.mask_logits.CopyFrom(
                segmentation_service_pb2.MaskLogits(
                    data=logits.tobytes(), height=logits.shape[0], width=logits.shape[1]
                )
            )
    return Operation(
        "/visiongate.v1.SegmentationService/SegmentRegions",
        segmentation_service_pb2.SegmentRegionsRequest(
            image=_image(image),
            prompts=prompts,
            multimask=multimask,
            mask_format=segmentation_service_pb2.MASK_FORMAT_RLE,
            include_logits=include_logits,
            model=model,
        ),
        segmentation_service_pb2.SegmentRegionsResponse,
        lambda response: [[_mask(mask) for mask in region.masks] for region in response.regions],
    )


def encode_image(image: ImageLike, *, model: str = "") -> Operation[EncodedImage]:
    """Have the server look at an image and keep it: prompts on the result are then answered quickly."""
    return Operation(
        "/visiongate.v1.SegmentationService/EncodeImage",
        segmentation_service_pb2.EncodeImageRequest(image=_image(image), model=model),
        segmentation_service_pb2.EncodeImageResponse,
        lambda response: EncodedImage(
            ImageId(response.image.image_id), response.image.width, response.image.height
        ),
    )


def list_models() -> Operation[list[Model]]:
    """What the server offers, sorted by task, the default of each task first."""
    return Operation(
        "/visiongate.v1.ModelService/ListModels",
        model_service_pb2.ListModelsRequest(),
        model_service_pb2.ListModelsResponse,
        lambda response: [
            Model(
                task=model_service_pb2.Task.Name(model.task).removeprefix("TASK_").lower(),
                family=model.family,
                variant=model.variant,
                is_default=model.is_default,
                ready=model.ready,
                input_size=model.input_size,
            )
            for model in response.models
        ],
    )


def _image(image: ImageLike) -> image_pb2.Image:
    match image:
        case EncodedImage():
            return image_pb2.Image(image_id=image.image_id)
        case bytes():
            return image_pb2.Image(encoded=image)
        case str() | os.PathLike():
            return image_pb2.Image(encoded=Path(image).read_bytes())
        case np.ndarray():
            return _raw(image)
        case Image.Image():
            # Lossless, smaller than pixels, and the server's own rules for grey, 16-bit and alpha hold.
            upright = ImageOps.exif_transpose(image)
            file = io.BytesIO()
            (upright if upright.mode in PNG_MODES else upright.convert("RGB")).save(
                file, "PNG", compress_level=1
            )
            return image_pb2.Image(encoded=file.getvalue())
        case _:
            raise TypeError(
                f"an image is a path, bytes, pixels or a Pillow image, not {type(image).__name__}"
            )


def _raw(pixels: NDArray[np.uint8]) -> image_pb2.Image:
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"pixels are uint8 [H, W] or [H, W, 3], not {pixels.dtype} {list(pixels.shape)}")
    height, width = pixels.shape[:2]
    return image_pb2.Image(raw=image_pb2.RawImage(rgb=pixels.tobytes(), width=width, height=height))


def _query(
    phrases: Sequence[str],
    caption: str,
    box_threshold: float | None,
    text_threshold: float | None,
    nms_iou_threshold: float | None,
    max_detections: int | None,
) -> detection_service_pb2.ObjectQuery:
    if isinstance(phrases, str):
        raise TypeError("phrases is a list of strings; for free text, use caption")
    return detection_service_pb2.ObjectQuery(
        phrases=phrases,
        caption=caption,
        box_threshold=box_threshold,
        text_threshold=text_threshold,
        nms_iou_threshold=nms_iou_threshold,
        max_detections=max_detections,
    )


def _box_message(box: NDArray[np.float32]) -> image_pb2.Box:
    x_min, y_min, x_max, y_max = map(float, box)
    return image_pb2.Box(x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max)


def _point_message(x: float, y: float, on_object: bool) -> segmentation_service_pb2.PromptPoint:
    label = (
        segmentation_service_pb2.POINT_LABEL_FOREGROUND
        if on_object
        else segmentation_service_pb2.POINT_LABEL_BACKGROUND
    )
    return segmentation_service_pb2.PromptPoint(point=image_pb2.Point(x=float(x), y=float(y)), label=label)


def _detection(message: detection_service_pb2.Detection) -> Detection:
    box = message.box
    return Detection(
        np.array([box.x_min, box.y_min, box.x_max, box.y_max], np.float32),
        message.phrase,
        message.score,
        message.phrase_index if message.HasField("phrase_index") else None,
    )


def _mask(message: segmentation_service_pb2.Mask) -> Mask:
    rle = {"size": [message.rle.height, message.rle.width], "counts": message.rle.counts}
    logits = None
    if message.HasField("logits"):
        logits = np.frombuffer(message.logits.data, "<f4").reshape(
            message.logits.height, message.logits.width
        )
    box = message.box
    return Mask(
        pixels=coco.decode(rle).astype(np.bool_, order="C"),
        predicted_iou=message.predicted_iou,
        box=np.array([box.x_min, box.y_min, box.x_max, box.y_max], np.int64),
        area=message.area,
        rle=rle | {"counts": message.rle.counts.decode()},
        logits=logits,
    )

"""Shared protobuf messages to and from the pipelines' arguments, with checks that name the field."""

import math
from collections.abc import Callable, Mapping

import numpy as np

from gateway.errors import InvalidArgumentError
from gateway.models import masks
from gateway.models.grounding_dino import Detection
from gateway.pipelines.core import (
    CachedImage,
    Call,
    EncodedImage,
    ImageSource,
    LoadedImage,
    RawImage,
    UriImage,
)
from gateway.pipelines.detection import ObjectQuery
from gateway.pipelines.segmentation import MaskResult
from gateway.settings import Settings
from visiongate.v1 import detection_service_pb2, image_pb2, segmentation_service_pb2

DEFAULT_MAX_DETECTIONS = 100
MAX_DETECTIONS = 1000


def image_source(image: image_pb2.Image, settings: Settings, field: str = "image") -> ImageSource:
    """What `image`, the request's `field`, brings, checked for size."""
    match image.WhichOneof("source"):
        case "encoded":
            if not image.encoded:
                raise InvalidArgumentError(f"{field}.encoded", "is empty")
            if len(image.encoded) > settings.max_image_bytes:
                raise InvalidArgumentError(
                    f"{field}.encoded",
                    f"has {len(image.encoded)} bytes; the limit is {settings.max_image_bytes}",
                )
            return EncodedImage(image.encoded)
        case "raw":
            return RawImage(image.raw.rgb, image.raw.width, image.raw.height)
        case "image_id":
            return CachedImage(image.image_id)
        case "uri":
            return UriImage(image.uri)
        case _:
            raise InvalidArgumentError(field, "is missing: set encoded, raw, image_id or uri")


def object_query(query: detection_service_pb2.ObjectQuery, settings: Settings) -> ObjectQuery:
    """Words, and the thresholds that the request has."""
    phrases = tuple(query.phrases)
    if phrases and query.caption:
        raise InvalidArgumentError("query", "has both phrases and a caption: give one")
    if not phrases and not query.caption.strip():
        raise InvalidArgumentError("query", "has neither phrases nor a caption: say what to look for")
    if len(phrases) > settings.max_phrases:
        raise InvalidArgumentError(
            "query.phrases", f"has {len(phrases)} phrases; the limit is {settings.max_phrases}"
        )
    check_length(
        sum(map(len, phrases)) or len(query.caption),
        "query.phrases" if phrases else "query.caption",
        settings,
    )
    for index, phrase in enumerate(phrases):
        if not phrase.strip():
            raise InvalidArgumentError(f"query.phrases[{index}]", "is empty")
    max_detections = query.max_detections if query.HasField("max_detections") else DEFAULT_MAX_DETECTIONS
    if not 1 <= max_detections <= MAX_DETECTIONS:
        raise InvalidArgumentError(
            "query.max_detections", f"is {max_detections}; it must be 1 to {MAX_DETECTIONS}"
        )
    return ObjectQuery(
        phrases=phrases,
        caption=query.caption,
        box_threshold=_fraction(query, "box_threshold"),
        text_threshold=_fraction(query, "text_threshold"),
        nms_iou_threshold=_fraction(query, "nms_iou_threshold"),
        max_detections=max_detections,
    )


def check_length(length: int, field: str, settings: Settings) -> None:
    """Refuses a text of more characters than a request may have."""
    if length > settings.max_text_length:
        raise InvalidArgumentError(field, f"has {length} characters; the limit is {settings.max_text_length}")


def check_fraction(value: float, field: str) -> float:
    """The value, refused where it is not 0 to 1."""
    if not 0 <= value <= 1:  # NaN fails too
        raise InvalidArgumentError(field, f"is {written(value)}; it must be 0 to 1")
    return value


def written(value: float) -> str:
    """A number of a request as its caller wrote it.

    Floats are single precision on the wire: as Python's doubles, -0.1 would read -0.10000000149011612.
    """
    return str(value) if isinstance(value, int) else str(np.float32(value)).removesuffix(".0")


def _fraction(query: detection_service_pb2.ObjectQuery, field: str) -> float | None:
    if not query.HasField(field):  # type: ignore[arg-type]
        return None
    return check_fraction(getattr(query, field), f"query.{field}")


def box_array(
    box: image_pb2.Box, image: LoadedImage, field: str
) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """xyxy float32 [4], checked to be a box inside the image."""
    for name, value, limit in (
        ("x_min", box.x_min, image.width),
        ("y_min", box.y_min, image.height),
        ("x_max", box.x_max, image.width),
        ("y_max", box.y_max, image.height),
    ):
        check_inside(value, limit, f"{field}.{name}")
    if box.x_min >= box.x_max or box.y_min >= box.y_max:
        raise InvalidArgumentError(
            field, "is empty: x_min must be less than x_max, and y_min less than y_max"
        )
    return np.array([box.x_min, box.y_min, box.x_max, box.y_max], np.float32)


def check_inside(value: float, limit: int, field: str) -> None:
    """Refuses a coordinate that is not a number from 0 to the image's side."""
    if not (math.isfinite(value) and 0 <= value <= limit):
        raise InvalidArgumentError(field, f"is {written(value)}, outside the image: it must be 0 to {limit}")


def detection_message(detection: Detection) -> detection_service_pb2.Detection:
    x_min, y_min, x_max, y_max = map(float, detection.box)
    return detection_service_pb2.Detection(
        box=image_pb2.Box(x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max),
        phrase=detection.phrase,
        phrase_index=detection.phrase_index,
        score=detection.score,
    )


def image_message(image: LoadedImage) -> image_pb2.ImageInfo:
    return image_pb2.ImageInfo(image_id=image.image_id, width=image.width, height=image.height)


def timings_message(call: Call, wanted: bool) -> image_pb2.Timings | None:
    if not wanted:
        return None
    return image_pb2.Timings(**{f"{stage}_ms": seconds * 1e3 for stage, seconds in call.seconds.items()})


def _rle(mask: masks.Mask) -> segmentation_service_pb2.Mask:
    rle = masks.encode_rle(mask)
    height, width = rle.size
    return segmentation_service_pb2.Mask(
        rle=segmentation_service_pb2.RunLengths(height=height, width=width, counts=rle.counts)
    )


def _polygons(mask: masks.Mask) -> segmentation_service_pb2.Mask:
    def ring(points: np.ndarray[tuple[int, int], np.dtype[np.int32]]) -> segmentation_service_pb2.Ring:
        return segmentation_service_pb2.Ring(coordinates=points.ravel().tolist())

    polygons = [
        segmentation_service_pb2.Polygon(exterior=ring(polygon.exterior), holes=map(ring, polygon.holes))
        for polygon in masks.encode_polygons(mask)
    ]
    return segmentation_service_pb2.Mask(polygons=segmentation_service_pb2.PolygonSet(polygons=polygons))


def _png(mask: masks.Mask) -> segmentation_service_pb2.Mask:
    return segmentation_service_pb2.Mask(png=masks.encode_png(mask))


def _bitmap(mask: masks.Mask) -> segmentation_service_pb2.Mask:
    height, width = mask.shape
    return segmentation_service_pb2.Mask(
        bitmap=segmentation_service_pb2.Bitmap(data=masks.encode_bitmap(mask), width=width, height=height)
    )


MaskWriter = Callable[[masks.Mask], segmentation_service_pb2.Mask]
MASK_WRITERS: Mapping[segmentation_service_pb2.MaskFormat.ValueType, MaskWriter] = {
    segmentation_service_pb2.MASK_FORMAT_UNSPECIFIED: _rle,
    segmentation_service_pb2.MASK_FORMAT_RLE: _rle,
    segmentation_service_pb2.MASK_FORMAT_POLYGONS: _polygons,
    segmentation_service_pb2.MASK_FORMAT_PNG: _png,
    segmentation_service_pb2.MASK_FORMAT_BITMAP: _bitmap,
}


def mask_writer(mask_format: segmentation_service_pb2.MaskFormat.ValueType) -> MaskWriter:
    """The function that writes masks in a format; it runs in worker threads."""
    writer = MASK_WRITERS.get(mask_format)
    if writer is None:
        raise InvalidArgumentError("mask_format", f"{mask_format} is not a known format")
    return writer


def mask_message(result: MaskResult[segmentation_service_pb2.Mask]) -> segmentation_service_pb2.Mask:
    """Completes a written mask with what else is known of it."""
    mask = result.written
    mask.predicted_iou = result.predicted_iou
    mask.area = result.area
    x_min, y_min, x_max, y_max = result.box
    mask.box.CopyFrom(image_pb2.Box(x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max))
    if result.logits is not None:
        height, width = result.logits.shape
        mask.logits.CopyFrom(
            segmentation_service_pb2.MaskLogits(
                data=result.logits.astype("<f4").tobytes(), width=width, height=height
            )
        )
    return mask

"""Masks and their logits."""

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from gateway.errors import InvalidArgumentError
from gateway.models.masks import Bitmap, EncodedMask, MaskFormat, Png, Polygons, Rle
from gateway.pipelines.segmentation import SegmentedMask
from gateway.services.messages.geometry import box_message
from visiongate.v1 import segmentation_service_pb2

_FORMATS: Mapping[segmentation_service_pb2.MaskFormat.ValueType, MaskFormat] = {
    segmentation_service_pb2.MASK_FORMAT_UNSPECIFIED: MaskFormat.RLE,
    segmentation_service_pb2.MASK_FORMAT_RLE: MaskFormat.RLE,
    segmentation_service_pb2.MASK_FORMAT_POLYGONS: MaskFormat.POLYGONS,
    segmentation_service_pb2.MASK_FORMAT_PNG: MaskFormat.PNG,
    segmentation_service_pb2.MASK_FORMAT_BITMAP: MaskFormat.BITMAP,
}
LogitsFormat: TypeAlias = segmentation_service_pb2.LogitsFormat.ValueType
_LOGITS_TYPES: Mapping[LogitsFormat, str] = {
    segmentation_service_pb2.LOGITS_FORMAT_UNSPECIFIED: "<f4",
    segmentation_service_pb2.LOGITS_FORMAT_FLOAT32: "<f4",
    segmentation_service_pb2.LOGITS_FORMAT_FLOAT16: "<f2",
}

COORDINATES_AT_A_TIME = 50_000

# SAM's logits are about -30 to 30. With numbers near the largest, its answers are no numbers.
MAX_LOGIT = 10_000.0


def mask_format(value: segmentation_service_pb2.MaskFormat.ValueType) -> MaskFormat:
    """Return the request's `mask_format`. Raise InvalidArgumentError if it is none."""
    if value not in _FORMATS:
        raise InvalidArgumentError("mask_format", f"{value} is not a known format")
    return _FORMATS[value]


def logits_type(value: LogitsFormat, path: str) -> np.dtype[np.floating]:
    """Return the type of the numbers. Raise InvalidArgumentError if the format is none."""
    if value not in _LOGITS_TYPES:
        raise InvalidArgumentError(path, f"{value} is not a known format")
    return np.dtype(_LOGITS_TYPES[value])


def logits_array(logits: segmentation_service_pb2.MaskLogits, path: str) -> NDArray[np.float32]:
    """Return float32 [height, width]. Raise InvalidArgumentError if the data cannot be that."""
    number_type = logits_type(logits.format, f"{path}.format")
    expected = logits.height * logits.width * number_type.itemsize
    data = logits.data  # each look at the field makes a copy
    if len(data) != expected:
        raise InvalidArgumentError(
            f"{path}.data",
            f"has {len(data)} bytes, not height {logits.height} x width {logits.width} x "
            f"{number_type.itemsize}",
        )
    values = np.frombuffer(data, number_type).reshape(logits.height, logits.width).astype(np.float32)
    # NaN fails too.
    if not (np.abs(values) <= MAX_LOGIT).all():
        raise InvalidArgumentError(f"{path}.data", f"has a value beyond -{MAX_LOGIT:g} to {MAX_LOGIT:g}")
    return values


def masks_size(mask_format: MaskFormat, count: int) -> int:
    """Return how many items messages of so many masks have, for `Threads.run_if_large`."""
    return count * (COORDINATES_AT_A_TIME if mask_format is MaskFormat.POLYGONS else 1)


def mask_message(
    mask: SegmentedMask,
    logits_format: LogitsFormat = segmentation_service_pb2.LOGITS_FORMAT_FLOAT32,
) -> segmentation_service_pb2.Mask:
    """Return a mask, and what is known of it, as a message."""
    message = _encoding_message(mask.encoded)
    message.predicted_iou = mask.predicted_iou
    message.area = mask.area
    message.box.CopyFrom(box_message(mask.box))
    if mask.logits is not None:
        height, width = mask.logits.shape
        message.logits.CopyFrom(
            segmentation_service_pb2.MaskLogits(
                data=_rounded(mask.logits, np.dtype(_LOGITS_TYPES[logits_format])).tobytes(),
                width=width,
                height=height,
                format=logits_format or segmentation_service_pb2.LOGITS_FORMAT_FLOAT32,
            )
        )
    return message


def _rounded(logits: NDArray[np.float32], number_type: np.dtype[np.floating]) -> NDArray[np.floating]:
    """Return the numbers as another type. Those beyond its largest one become it: they would be infinite."""
    limit = np.finfo(number_type).max
    return np.clip(logits, -limit, limit).astype(number_type)


def _encoding_message(encoded: EncodedMask) -> segmentation_service_pb2.Mask:
    match encoded:
        case Rle((height, width), counts):
            return segmentation_service_pb2.Mask(
                rle=segmentation_service_pb2.RunLengths(
                    height=height, width=width, counts=counts.decode("ascii")
                )
            )
        case Polygons(polygons):
            messages = [
                segmentation_service_pb2.Polygon(
                    exterior=_ring_message(polygon.exterior), holes=map(_ring_message, polygon.holes)
                )
                for polygon in polygons
            ]
            return segmentation_service_pb2.Mask(
                polygons=segmentation_service_pb2.PolygonSet(polygons=messages)
            )
        case Png(data):
            return segmentation_service_pb2.Mask(png=data)
        case Bitmap((height, width), data):
            return segmentation_service_pb2.Mask(
                bitmap=segmentation_service_pb2.Bitmap(data=data, width=width, height=height)
            )


def _ring_message(points: NDArray[np.int32]) -> segmentation_service_pb2.Ring:
    ring = segmentation_service_pb2.Ring()
    coordinates = points.ravel()
    # Some at a time: each step holds the interpreter's lock.
    for start in range(0, len(coordinates), COORDINATES_AT_A_TIME):
        ring.coordinates.extend(coordinates[start : start + COORDINATES_AT_A_TIME].tolist())
    return ring

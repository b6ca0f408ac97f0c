"""Masks, read from messages."""

import numpy as np

from visiongate.masks import Mask
from visiongate.operations.geometry import read_box
from visiongate.v1 import segmentation_service_pb2

_LOGITS_TYPES = {
    segmentation_service_pb2.LOGITS_FORMAT_UNSPECIFIED: "<f4",
    segmentation_service_pb2.LOGITS_FORMAT_FLOAT32: "<f4",
    segmentation_service_pb2.LOGITS_FORMAT_FLOAT16: "<f2",
}


def read_mask(message: segmentation_service_pb2.Mask) -> Mask:
    """Read a mask, with the logits if they were asked for."""
    logits = None
    if message.HasField("logits"):
        numbers = np.frombuffer(message.logits.data, _LOGITS_TYPES[message.logits.format])
        logits = numbers.astype(np.float32).reshape(message.logits.height, message.logits.width)
    return Mask(
        predicted_iou=message.predicted_iou,
        box=read_box(message.box).astype(np.int64),
        area=message.area,
        rle={"size": [message.rle.height, message.rle.width], "counts": message.rle.counts},
        logits=logits,
    )

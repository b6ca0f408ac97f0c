"""What the client makes of masks."""

import numpy as np
import pytest
from pycocotools import mask as coco

from visiongate.operations import segmentation
from visiongate.v1 import geometry_pb2, segmentation_service_pb2

PIXELS = np.zeros((2, 4, 3), np.uint8)
MASK = np.array([[0, 1, 1, 0], [0, 1, 0, 0]], np.uint8)
LOGITS = np.array([[-1.5, 2], [0.25, -3]])
FORMATS = {
    segmentation_service_pb2.LOGITS_FORMAT_UNSPECIFIED: "<f4",
    segmentation_service_pb2.LOGITS_FORMAT_FLOAT32: "<f4",
    segmentation_service_pb2.LOGITS_FORMAT_FLOAT16: "<f2",
}


@pytest.mark.parametrize("format", FORMATS)
def test_a_mask_is_read(format: segmentation_service_pb2.LogitsFormat.ValueType) -> None:
    counts = coco.encode(np.asfortranarray(MASK))["counts"].decode()
    message = segmentation_service_pb2.Mask(
        rle=segmentation_service_pb2.RunLengths(height=2, width=4, counts=counts),
        box=geometry_pb2.Box(x_min=1, y_min=0, x_max=3, y_max=2),
        area=3,
        predicted_iou=0.5,
        logits=segmentation_service_pb2.MaskLogits(
            data=LOGITS.astype(FORMATS[format]).tobytes(), width=2, height=2, format=format
        ),
    )
    response = segmentation_service_pb2.SegmentRegionsResponse(
        regions=[segmentation_service_pb2.Region(masks=[message])]
    )
    ((mask,),) = segmentation.segment(PIXELS, boxes=[[1, 0, 3, 2]]).parse(response, "")
    assert (mask.pixels == MASK).all()
    assert mask.rle == {"size": [2, 4], "counts": counts}
    assert (mask.box.tolist(), mask.area, mask.predicted_iou) == ([1, 0, 3, 2], 3, 0.5)
    assert mask.logits is not None
    assert mask.logits.dtype == np.float32
    assert mask.logits.tolist() == LOGITS.tolist()

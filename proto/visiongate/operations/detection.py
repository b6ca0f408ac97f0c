"""Objects that words name."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visiongate.operations.image import ImageLike, image_message
from visiongate.operations.operation import Operation
from visiongate.v1 import detection_service_pb2


@dataclass(frozen=True, eq=False, slots=True)
class Detection:
    """An object: `box` float32 [4], x_min, y_min, x_max, y_max in pixels of the image.

    `phrase_index` is the phrase's place in the request, None where the request gave a caption.
    """

    box: NDArray[np.float32]
    phrase: str
    score: float
    phrase_index: int | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "phrase": self.phrase,
            "phrase_index": self.phrase_index,
            "score": round(self.score, 4),
            "box": [round(float(value), 2) for value in self.box],
        }


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

    Thresholds are 0 to 1; where not given, the model's own hold. Of two boxes of a phrase that overlap by
    more than `nms_iou_threshold` only the better stays; with 1 all do.
    """
    query = object_query(phrases, caption, box_threshold, text_threshold, nms_iou_threshold, max_detections)
    return Operation(
        "/visiongate.v1.DetectionService/DetectObjects",
        detection_service_pb2.DetectObjectsRequest(image=image_message(image), query=query, model=model),
        detection_service_pb2.DetectObjectsResponse,
        lambda response, request_id: [read_detection(detection) for detection in response.detections],
    )


def object_query(
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


def read_detection(message: detection_service_pb2.Detection) -> Detection:
    box = message.box
    return Detection(
        np.array([box.x_min, box.y_min, box.x_max, box.y_max], np.float32),
        message.phrase,
        message.score,
        message.phrase_index if message.HasField("phrase_index") else None,
    )

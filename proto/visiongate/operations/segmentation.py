"""Masks of what prompts, and words, point at."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from visiongate.answer import Answer
from visiongate.detections import Detections
from visiongate.masks import Mask
from visiongate.operations import arguments
from visiongate.operations.answers import read_info
from visiongate.operations.detection import object_query, read_detection, read_detections
from visiongate.operations.geometry import read_box, read_point
from visiongate.operations.image import ImageHandle, ImageId, ImageLike, image_message
from visiongate.operations.operation import Operation
from visiongate.operations.prompts import prompt_messages
from visiongate.v1 import segmentation_service_pb2

MAX_POINTS_PER_SIDE = 128
MAX_CROP_LAYERS = 3
MAX_STABILITY_OFFSET = 100

_LOGITS_TYPES = {
    segmentation_service_pb2.LOGITS_FORMAT_UNSPECIFIED: "<f4",
    segmentation_service_pb2.LOGITS_FORMAT_FLOAT32: "<f4",
    segmentation_service_pb2.LOGITS_FORMAT_FLOAT16: "<f2",
}


@dataclass(frozen=True, eq=False, slots=True)
class GridMask:
    """A mask that a point of a grid led to: `point` float32 [2], x, y in pixels of the image.

    stability_score: 0 to 1, how little the mask changes when it is cut a little tighter or wider.
    """

    mask: Mask
    stability_score: float
    point: NDArray[np.float32]

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON holds."""
        return {
            "mask": self.mask.as_dict(),
            "stability_score": round(self.stability_score, 4),
            "point": [round(float(value), 2) for value in self.point],
        }


def segment_phrases(
    image: ImageLike,
    phrases: Iterable[str] = (),
    *,
    caption: str = "",
    min_score: float | None = None,
    min_token_score: float | None = None,
    nms_iou_threshold: float | None = None,
    max_detections: int | None = None,
    detection_model: str = "",
    segmentation_model: str = "",
) -> Operation[Detections]:
    """Find the objects that words name, as `detect` does, and cut each of them out: each has a `mask`."""
    query = object_query(phrases, caption, min_score, min_token_score, nms_iou_threshold, max_detections)
    return Operation(
        "/visiongate.v1.SegmentationService/SegmentPhrases",
        segmentation_service_pb2.SegmentPhrasesRequest(
            image=image_message(image),
            query=query,
            mask_format=segmentation_service_pb2.MASK_FORMAT_RLE,
            detection_model=arguments.text(detection_model, "detection_model"),
            segmentation_model=arguments.text(segmentation_model, "segmentation_model"),
            include_timings=True,
        ),
        segmentation_service_pb2.SegmentPhrasesResponse,
        lambda response, request_id: read_detections(
            query,
            [read_detection(item.detection, _mask(item.mask)) for item in response.objects],
            read_info(
                response,
                request_id,
                [response.image],
                model=response.segmentation_model,
                detection_model=response.detection_model,
            ),
            has_masks=True,
        ),
    )


def segment(
    image: ImageLike,
    *,
    boxes: ArrayLike | Sequence[ArrayLike | None] | None = None,
    points: Sequence[ArrayLike | None] | None = None,
    labels: Sequence[ArrayLike | None] | None = None,
    mask_logits: Sequence[ArrayLike | None] | None = None,
    multimask: bool = False,
    include_logits: bool = False,
    model: str = "",
) -> Operation[Answer[list[Mask]]]:
    """Cut out what prompts point at: for each prompt one mask, or with `multimask` three, best first.

    Prompt i has boxes[i] (x_min, y_min, x_max, y_max), points[i] (a list of x, y) with labels[i]
    (1 on the object, 0 off it; by default all on it), and mask_logits[i] (the logits of an earlier
    mask). None stands for what a prompt does not have. All coordinates are pixels of the image.

        client.segment(image, boxes=[[10, 20, 90, 80], None], points=[None, [[400, 200], [410, 250]]])
    """
    return Operation(
        "/visiongate.v1.SegmentationService/SegmentRegions",
        segmentation_service_pb2.SegmentRegionsRequest(
            image=image_message(image),
            prompts=prompt_messages(boxes, points, labels, mask_logits),
            multimask=arguments.flag(multimask, "multimask"),
            mask_format=segmentation_service_pb2.MASK_FORMAT_RLE,
            include_logits=arguments.flag(include_logits, "include_logits"),
            model=arguments.text(model, "model"),
            include_timings=True,
        ),
        segmentation_service_pb2.SegmentRegionsResponse,
        lambda response, request_id: Answer(
            [[_mask(mask) for mask in region.masks] for region in response.regions],
            read_info(response, request_id, [response.image]),
        ),
    )


def segment_everything(
    image: ImageLike,
    *,
    points_per_side: int | None = None,
    crop_layers: int = 0,
    crop_overlap_ratio: float | None = None,
    crop_points_downscale: int | None = None,
    min_predicted_iou: float | None = None,
    min_stability_score: float | None = None,
    stability_offset: float | None = None,
    nms_iou_threshold: float | None = None,
    min_mask_area: int = 0,
    min_region_area: int = 0,
    max_masks: int | None = None,
    model: str = "",
) -> Operation[Answer[GridMask]]:
    """Cut out everything in sight: a grid of points prompts the model, the best masks are kept, best first.

    By default the server's own values hold. Without a GPU it can take minutes: mind the timeout.
    """
    side = MAX_POINTS_PER_SIDE
    request = segmentation_service_pb2.SegmentEverythingRequest(
        image=image_message(image),
        points_per_side=arguments.whole_number(points_per_side, "points_per_side", 1, side),
        crop_layers=arguments.whole_number(crop_layers, "crop_layers", 0, MAX_CROP_LAYERS),
        crop_overlap_ratio=arguments.fraction(crop_overlap_ratio, "crop_overlap_ratio", below_one=True),
        crop_points_downscale=arguments.whole_number(crop_points_downscale, "crop_points_downscale", 1, side),
        min_predicted_iou=arguments.fraction(min_predicted_iou, "min_predicted_iou"),
        min_stability_score=arguments.fraction(min_stability_score, "min_stability_score"),
        stability_offset=arguments.positive(stability_offset, "stability_offset", MAX_STABILITY_OFFSET),
        nms_iou_threshold=arguments.fraction(nms_iou_threshold, "nms_iou_threshold"),
        min_mask_area=arguments.whole_number(min_mask_area, "min_mask_area", 0),
        min_region_area=arguments.whole_number(min_region_area, "min_region_area", 0),
        max_masks=arguments.whole_number(max_masks, "max_masks", 1),
        mask_format=segmentation_service_pb2.MASK_FORMAT_RLE,
        model=arguments.text(model, "model"),
        include_timings=True,
    )
    return Operation(
        "/visiongate.v1.SegmentationService/SegmentEverything",
        request,
        segmentation_service_pb2.SegmentEverythingResponse,
        lambda response, request_id: Answer(
            [
                GridMask(_mask(item.mask), item.stability_score, read_point(item.point))
                for item in response.masks
            ],
            read_info(response, request_id, [response.image]),
        ),
    )


def encode_image(image: ImageLike, *, model: str = "") -> Operation[ImageHandle]:
    """Have the server look at an image and keep it: prompts on the result are then answered quickly."""
    return Operation(
        "/visiongate.v1.SegmentationService/EncodeImage",
        segmentation_service_pb2.EncodeImageRequest(
            image=image_message(image), model=arguments.text(model, "model"), include_timings=True
        ),
        segmentation_service_pb2.EncodeImageResponse,
        lambda response, request_id: ImageHandle(
            ImageId(response.image.image_id),
            response.image.width,
            response.image.height,
            read_info(response, request_id, [response.image]),
        ),
    )


def _mask(message: segmentation_service_pb2.Mask) -> Mask:
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

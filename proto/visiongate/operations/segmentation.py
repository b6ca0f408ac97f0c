"""Masks of what prompts, and words, point at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pycocotools import mask as coco

from visiongate.operations.detection import Detection, object_query, read_detection
from visiongate.operations.image import EncodedImage, ImageId, ImageLike, box_message, image_message
from visiongate.operations.operation import Operation
from visiongate.v1 import image_pb2, segmentation_service_pb2


@dataclass(frozen=True, eq=False)
class Mask:
    """Pixels of an object.

    box: int [4] around them, right and bottom edges exclusive. rle: COCO's compressed run lengths,
    {"size": [H, W], "counts": str}. logits: float32 [m, m] where asked for, else None; a later prompt
    takes them to refine the mask.
    """

    predicted_iou: float
    box: NDArray[np.int64]
    area: int
    rle: Mapping[str, Any]
    logits: NDArray[np.float32] | None

    @cached_property
    def pixels(self) -> NDArray[np.bool_]:
        """Bool [H, W] of the image's size, made when first asked for: of many masks that is much memory."""
        rle = {"size": self.rle["size"], "counts": self.rle["counts"].encode()}
        decoded: NDArray[np.uint8] = coco.decode(rle)
        return decoded.astype(np.bool_, order="C")

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the pixels as run lengths."""
        return {
            "predicted_iou": round(self.predicted_iou, 4),
            "area": self.area,
            "box": self.box.tolist(),
            "rle": dict(self.rle),
        }


@dataclass(frozen=True, eq=False, slots=True)
class SegmentedObject:
    """An object that words named, and its mask."""

    detection: Detection
    mask: Mask

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return self.detection.as_dict() | {"mask": self.mask.as_dict()}


@dataclass(frozen=True, eq=False, slots=True)
class GridMask:
    """A mask that a point of a grid led to: `point` float32 [2], x, y in pixels of the image.

    stability_score: 0 to 1, how little the mask changes when it is cut a little tighter or wider.
    """

    mask: Mask
    stability_score: float
    point: NDArray[np.float32]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "mask": self.mask.as_dict(),
            "stability_score": round(self.stability_score, 4),
            "point": [round(float(value), 2) for value in self.point],
        }


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
    query = object_query(phrases, caption, box_threshold, text_threshold, nms_iou_threshold, max_detections)
    return Operation(
        "/visiongate.v1.SegmentationService/SegmentPhrases",
        segmentation_service_pb2.SegmentPhrasesRequest(
            image=image_message(image),
            query=query,
            mask_format=segmentation_service_pb2.MASK_FORMAT_RLE,
            detection_model=detection_model,
            segmentation_model=segmentation_model,
        ),
        segmentation_service_pb2.SegmentPhrasesResponse,
        lambda response, request_id: [
            SegmentedObject(read_detection(item.detection), _mask(item.mask)) for item in response.objects
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
            prompt.box.CopyFrom(box_message(np.asarray(boxes, np.float32)[index]))
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
            image=image_message(image),
            prompts=prompts,
            multimask=multimask,
            mask_format=segmentation_service_pb2.MASK_FORMAT_RLE,
            include_logits=include_logits,
            model=model,
        ),
        segmentation_service_pb2.SegmentRegionsResponse,
        lambda response, request_id: [[_mask(mask) for mask in region.masks] for region in response.regions],
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
) -> Operation[list[GridMask]]:
    """Cut out everything in sight: a grid of points prompts the model, the best masks are kept, best first.

    Where not given, the server's defaults hold. It can take minutes without a GPU: mind the timeout.
    """
    return Operation(
        "/visiongate.v1.SegmentationService/SegmentEverything",
        segmentation_service_pb2.SegmentEverythingRequest(
            image=image_message(image),
            points_per_side=points_per_side,
            crop_layers=crop_layers,
            crop_overlap_ratio=crop_overlap_ratio,
            crop_points_downscale=crop_points_downscale,
            min_predicted_iou=min_predicted_iou,
            min_stability_score=min_stability_score,
            stability_offset=stability_offset,
            nms_iou_threshold=nms_iou_threshold,
            min_mask_area=min_mask_area,
            min_region_area=min_region_area,
            max_masks=max_masks,
            mask_format=segmentation_service_pb2.MASK_FORMAT_RLE,
            model=model,
        ),
        segmentation_service_pb2.SegmentEverythingResponse,
        lambda response, request_id: [
            GridMask(
                _mask(item.mask), item.stability_score, np.array([item.point.x, item.point.y], np.float32)
            )
            for item in response.masks
        ],
    )


def encode_image(image: ImageLike, *, model: str = "") -> Operation[EncodedImage]:
    """Have the server look at an image and keep it: prompts on the result are then answered quickly."""
    return Operation(
        "/visiongate.v1.SegmentationService/EncodeImage",
        segmentation_service_pb2.EncodeImageRequest(image=image_message(image), model=model),
        segmentation_service_pb2.EncodeImageResponse,
        lambda response, request_id: EncodedImage(
            ImageId(response.image.image_id), response.image.width, response.image.height
        ),
    )


def _point_message(x: float, y: float, on_object: bool) -> segmentation_service_pb2.PromptPoint:
    label = (
        segmentation_service_pb2.POINT_LABEL_FOREGROUND
        if on_object
        else segmentation_service_pb2.POINT_LABEL_BACKGROUND
    )
    return segmentation_service_pb2.PromptPoint(point=image_pb2.Point(x=float(x), y=float(y)), label=label)


def _mask(message: segmentation_service_pb2.Mask) -> Mask:
    rle = {"size": [message.rle.height, message.rle.width], "counts": message.rle.counts.decode()}
    logits = None
    if message.HasField("logits"):
        logits = np.frombuffer(message.logits.data, "<f4").reshape(
            message.logits.height, message.logits.width
        )
    box = message.box
    return Mask(
        predicted_iou=message.predicted_iou,
        box=np.array([box.x_min, box.y_min, box.x_max, box.y_max], np.int64),
        area=message.area,
        rle=rle,
        logits=logits,
    )

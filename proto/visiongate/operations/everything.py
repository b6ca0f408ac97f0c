"""Masks of everything in sight."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visiongate.answer import Answer
from visiongate.masks import Mask
from visiongate.operations import arguments, splitting
from visiongate.operations.answers import read_info, read_list_info
from visiongate.operations.geometry import read_point
from visiongate.operations.image import ImageLike, image_message
from visiongate.operations.masks import read_mask
from visiongate.operations.operation import Operation
from visiongate.v1 import segmentation_service_pb2

DEFAULT_POINTS_PER_SIDE, MAX_POINTS_PER_SIDE = 32, 128
MAX_CROP_LAYERS = 3
MAX_STABILITY_OFFSET = 100


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
    return Operation(
        "/visiongate.v1.SegmentationService/SegmentEverything",
        segmentation_service_pb2.SegmentEverythingRequest(
            image=image_message(image),
            include_timings=True,
            **_grid(
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
                model=model,
            ),
        ),
        segmentation_service_pb2.SegmentEverythingResponse,
        lambda response, request_id: Answer(
            map(_grid_mask, response.masks), read_info(response, request_id, [response.image])
        ),
    )


def segment_everything_batch(
    images: Iterable[ImageLike],
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
    strict: bool = True,
) -> Operation[Answer[list[GridMask]]]:
    """Cut out everything in sight in many images: for each image what `segment_everything` finds.

    An image that cannot be used fails the call. With `strict=False` it has no masks, and the answer's
    `errors` say why.

    A list that is too long for one request is sent in several; all images are held in memory.
    """
    keywords = {
        "include_timings": True,
        "strict": arguments.flag(strict, "strict"),
        **_grid(
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
            model=model,
        ),
    }
    empty = segmentation_service_pb2.BatchSegmentEverythingRequest(**keywords)
    share = max(1 / splitting.MAX_IMAGES, _points(empty) / splitting.MAX_GRID_POINTS)
    request, more = splitting.requests(
        lambda part: segmentation_service_pb2.BatchSegmentEverythingRequest(images=part, **keywords),
        arguments.images(images),
        lambda image: share,
    )
    return Operation(
        "/visiongate.v1.SegmentationService/BatchSegmentEverything",
        request,
        segmentation_service_pb2.BatchSegmentEverythingResponse,
        lambda response, request_id: Answer(
            (list(map(_grid_mask, result.found.masks)) for result in response.results),
            read_list_info(response, request_id),
        ),
        more,
        list_name="images",
    )


def _grid(
    *,
    points_per_side: int | None,
    crop_layers: int,
    crop_overlap_ratio: float | None,
    crop_points_downscale: int | None,
    min_predicted_iou: float | None,
    min_stability_score: float | None,
    stability_offset: float | None,
    nms_iou_threshold: float | None,
    min_mask_area: int,
    min_region_area: int,
    max_masks: int | None,
    model: str,
) -> dict[str, Any]:
    """Return the fields of a request for everything other than its images."""
    side = MAX_POINTS_PER_SIDE
    return {
        "points_per_side": arguments.whole_number(points_per_side, "points_per_side", 1, side),
        "crop_layers": arguments.whole_number(crop_layers, "crop_layers", 0, MAX_CROP_LAYERS),
        "crop_overlap_ratio": arguments.fraction(crop_overlap_ratio, "crop_overlap_ratio", below_one=True),
        "crop_points_downscale": arguments.whole_number(
            crop_points_downscale, "crop_points_downscale", 1, side
        ),
        "min_predicted_iou": arguments.fraction(min_predicted_iou, "min_predicted_iou"),
        "min_stability_score": arguments.fraction(min_stability_score, "min_stability_score"),
        "stability_offset": arguments.positive(stability_offset, "stability_offset", MAX_STABILITY_OFFSET),
        "nms_iou_threshold": arguments.fraction(nms_iou_threshold, "nms_iou_threshold"),
        "min_mask_area": arguments.whole_number(min_mask_area, "min_mask_area", 0),
        "min_region_area": arguments.whole_number(min_region_area, "min_region_area", 0),
        "max_masks": arguments.whole_number(max_masks, "max_masks", 1),
        "mask_format": segmentation_service_pb2.MASK_FORMAT_RLE,
        "model": arguments.text(model, "model"),
    }


def _points(request: segmentation_service_pb2.BatchSegmentEverythingRequest) -> int:
    """Return the points of all crops of an image, as the server counts them."""
    side, downscale = request.points_per_side or DEFAULT_POINTS_PER_SIDE, request.crop_points_downscale or 1
    return sum(4**layer * max(1, side // downscale**layer) ** 2 for layer in range(request.crop_layers + 1))


def _grid_mask(message: segmentation_service_pb2.GridMask) -> GridMask:
    return GridMask(read_mask(message.mask), message.stability_score, read_point(message.point))

"""Masks of what prompts, and words, point at."""

from collections.abc import Iterable, Sequence
from typing import Any

from numpy.typing import ArrayLike

from visiongate.answer import Answer
from visiongate.detections import Detections
from visiongate.masks import Mask
from visiongate.operations import arguments, splitting
from visiongate.operations.answers import item_info, read_info, read_list_info
from visiongate.operations.detection import object_query, read_detection, read_detections
from visiongate.operations.image import ImageHandle, ImageId, ImageLike, image_message
from visiongate.operations.masks import read_mask
from visiongate.operations.operation import Operation
from visiongate.operations.prompts import prompt_messages
from visiongate.v1 import segmentation_service_pb2


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
            [read_detection(item.detection, read_mask(item.mask)) for item in response.objects],
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


def segment_phrases_batch(
    images: Iterable[ImageLike],
    phrases: Iterable[str] = (),
    *,
    caption: str = "",
    min_score: float | None = None,
    min_token_score: float | None = None,
    nms_iou_threshold: float | None = None,
    max_detections: int | None = None,
    detection_model: str = "",
    segmentation_model: str = "",
    strict: bool = True,
) -> Operation[Answer[Detections]]:
    """Find the objects that words name in many images, and cut each out, as `segment_phrases` does in one.

    An image that cannot be used fails the call. With `strict=False` it has no detections, and the answer's
    `errors` say why.

    A list that is too long for one request is sent in several; all images are held in memory.
    """
    query = object_query(phrases, caption, min_score, min_token_score, nms_iou_threshold, max_detections)
    keywords: dict[str, Any] = {
        "query": query,
        "mask_format": segmentation_service_pb2.MASK_FORMAT_RLE,
        "detection_model": arguments.text(detection_model, "detection_model"),
        "segmentation_model": arguments.text(segmentation_model, "segmentation_model"),
        "include_timings": True,
        "strict": arguments.flag(strict, "strict"),
    }
    request, more = splitting.requests(
        lambda part: segmentation_service_pb2.BatchSegmentPhrasesRequest(images=part, **keywords),
        arguments.images(images),
        lambda image: 1 / splitting.MAX_IMAGES,
    )

    def read(
        response: segmentation_service_pb2.BatchSegmentPhrasesResponse, request_id: str
    ) -> Answer[Detections]:
        info = read_list_info(
            response, request_id, model=response.segmentation_model, detection_model=response.detection_model
        )
        return Answer(
            (
                read_detections(
                    query,
                    [read_detection(item.detection, read_mask(item.mask)) for item in result.found.objects],
                    item_info(info, index),
                    has_masks=True,
                )
                for index, result in enumerate(response.results)
            ),
            info,
        )

    return Operation(
        "/visiongate.v1.SegmentationService/BatchSegmentPhrases",
        request,
        segmentation_service_pb2.BatchSegmentPhrasesResponse,
        read,
        more,
        list_name="images",
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
            [[read_mask(mask) for mask in region.masks] for region in response.regions],
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

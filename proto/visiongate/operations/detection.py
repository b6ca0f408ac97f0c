"""Objects that words name."""

from collections.abc import Iterable, Sequence
from typing import Any

from visiongate.answer import Answer, AnswerInfo
from visiongate.detections import Detection, Detections
from visiongate.masks import Mask
from visiongate.operations import arguments, splitting
from visiongate.operations.answers import item_info, read_info, read_list_info
from visiongate.operations.geometry import read_box
from visiongate.operations.image import ImageLike, image_message
from visiongate.operations.operation import Operation
from visiongate.v1 import detection_service_pb2


def detect(
    image: ImageLike,
    phrases: Iterable[str] = (),
    *,
    caption: str = "",
    min_score: float | None = None,
    min_token_score: float | None = None,
    nms_iou_threshold: float | None = None,
    max_detections: int | None = None,
    model: str = "",
) -> Operation[Detections]:
    """Find the objects that phrases (a list of classes) or a caption (free text) name, best first.

    `min_score` is the least score of a detection, Grounding DINO's box_threshold. `min_token_score` is the
    least score of a caption's token that becomes part of a detection's phrase, its text_threshold. If two
    boxes of a phrase overlap by more than `nms_iou_threshold`, only the better one stays; with 1 all stay.
    All three are 0 to 1, and by default the model's own. The answer has at most `max_detections` (100 by
    default, at most 1000).
    """
    query = object_query(phrases, caption, min_score, min_token_score, nms_iou_threshold, max_detections)
    return Operation(
        "/visiongate.v1.DetectionService/DetectObjects",
        detection_service_pb2.DetectObjectsRequest(
            image=image_message(image),
            query=query,
            model=arguments.text(model, "model"),
            include_timings=True,
        ),
        detection_service_pb2.DetectObjectsResponse,
        lambda response, request_id: read_detections(
            query,
            [read_detection(detection) for detection in response.detections],
            read_info(response, request_id, [response.image]),
        ),
    )


def detect_batch(
    images: Iterable[ImageLike],
    phrases: Iterable[str] = (),
    *,
    caption: str = "",
    min_score: float | None = None,
    min_token_score: float | None = None,
    nms_iou_threshold: float | None = None,
    max_detections: int | None = None,
    model: str = "",
    strict: bool = True,
) -> Operation[Answer[Detections]]:
    """Find the objects that words name in many images: for each image what `detect` finds.

    An image that cannot be used fails the call. With `strict=False` it has no detections, and the answer's
    `errors` say why.

    A list that is too long for one request is sent in several; all images are held in memory.
    """
    query = object_query(phrases, caption, min_score, min_token_score, nms_iou_threshold, max_detections)
    keywords: dict[str, Any] = {
        "query": query,
        "model": arguments.text(model, "model"),
        "include_timings": True,
        "strict": arguments.flag(strict, "strict"),
    }
    request, more = splitting.requests(
        lambda part: detection_service_pb2.BatchDetectObjectsRequest(images=part, **keywords),
        arguments.images(images),
        lambda image: 1 / splitting.MAX_IMAGES,
    )

    def read(
        response: detection_service_pb2.BatchDetectObjectsResponse, request_id: str
    ) -> Answer[Detections]:
        info = read_list_info(response, request_id)
        return Answer(
            (
                read_detections(
                    query, list(map(read_detection, result.found.detections)), item_info(info, index)
                )
                for index, result in enumerate(response.results)
            ),
            info,
        )

    return Operation(
        "/visiongate.v1.DetectionService/BatchDetectObjects",
        request,
        detection_service_pb2.BatchDetectObjectsResponse,
        read,
        more,
        list_name="images",
    )


def object_query(
    phrases: Iterable[str],
    caption: str,
    min_score: float | None,
    min_token_score: float | None,
    nms_iou_threshold: float | None,
    max_detections: int | None,
) -> detection_service_pb2.ObjectQuery:
    values = arguments.texts(phrases, "phrases", "for free text, use caption")
    caption = arguments.text(caption, "caption")
    if values and caption:
        raise ValueError("phrases and caption are two ways to say what to look for: give one of them")
    query = detection_service_pb2.ObjectQuery(
        phrases=detection_service_pb2.PhraseList(values=values) if values else None,
        min_score=arguments.fraction(min_score, "min_score"),
        min_token_score=arguments.fraction(min_token_score, "min_token_score"),
        nms_iou_threshold=arguments.fraction(nms_iou_threshold, "nms_iou_threshold"),
        max_detections=arguments.whole_number(max_detections, "max_detections", 1),
    )
    if caption:
        query.caption = caption
    return query


def read_detection(message: detection_service_pb2.Detection, mask: Mask | None = None) -> Detection:
    return Detection(
        read_box(message.box),
        message.phrase,
        message.score,
        message.phrase_index if message.HasField("phrase_index") else None,
        mask,
    )


def read_detections(
    query: detection_service_pb2.ObjectQuery,
    items: Sequence[Detection],
    info: AnswerInfo,
    *,
    has_masks: bool = False,
) -> Detections:
    """Return the items with the classes: the query's phrases, or those that its caption led to."""
    classes = query.phrases.values or dict.fromkeys(item.phrase for item in items)
    return Detections(items, list(classes), info, has_masks=has_masks)

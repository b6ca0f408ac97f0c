"""What to detect, and what was detected."""

from gateway.errors import InvalidArgumentError
from gateway.models.grounding_dino import Detection
from gateway.pipelines.detection import ObjectQuery
from gateway.services.messages.checks import FRACTION, Range, check_count, optional
from gateway.services.messages.geometry import box_message
from gateway.settings import Settings
from visiongate.v1 import detection_service_pb2

DEFAULT_MAX_DETECTIONS = 100


def words_path(query: detection_service_pb2.ObjectQuery) -> str:
    """Return the path of the words of a request's `query`."""
    return "query.caption" if query.HasField("caption") else "query.phrases"


def object_query(query: detection_service_pb2.ObjectQuery, settings: Settings) -> ObjectQuery:
    """Return the words and the thresholds of a request. Raise InvalidArgumentError if they are wrong."""
    path, phrases = words_path(query), tuple(query.phrases.values)
    if not phrases and not query.caption.strip():
        raise InvalidArgumentError("query", "has neither phrases nor a caption: say what to look for")
    check_count(len(phrases), settings.max_phrases, path, "phrases")
    length = sum(map(len, phrases)) or len(query.caption)
    check_count(length, settings.max_text_length, path, "characters")
    for index, phrase in enumerate(phrases):
        if not phrase.strip():
            raise InvalidArgumentError(f"{path}.values[{index}]", "is empty")
    default = min(DEFAULT_MAX_DETECTIONS, settings.max_detections)
    max_detections = query.max_detections if query.HasField("max_detections") else default
    return ObjectQuery(
        phrases=phrases,
        caption=query.caption,
        min_score=optional(query, "min_score", FRACTION, "query."),
        min_token_score=optional(query, "min_token_score", FRACTION, "query."),
        nms_iou_threshold=optional(query, "nms_iou_threshold", FRACTION, "query."),
        max_detections=Range(1, settings.max_detections).check(max_detections, "query.max_detections"),
    )


def detection_message(detection: Detection) -> detection_service_pb2.Detection:
    """Return a detected object as a message."""
    return detection_service_pb2.Detection(
        box=box_message(detection.box),
        phrase=detection.phrase,
        phrase_index=detection.phrase_index,
        score=detection.score,
    )

"""Objects that words name: Grounding DINO, also where the SDK asks for YOLO-World."""

from gateway.errors import InvalidArgumentError
from gateway.http.inference_sdk.asked import IMAGE_NAMES, Asked
from gateway.http.inference_sdk.boxes import centred_box, prediction
from gateway.http.inference_sdk.errors import NotServedError
from gateway.http.json_text import Tree

# Their defaults. Those of our models are lower.
GROUNDING_DINO_SCORE, YOLO_WORLD_SCORE = 0.5, 0.4
_VERSION = "grounding_dino_version_id"


async def grounding_dino(asked: Asked) -> Tree:
    """Find objects with Grounding DINO."""
    if asked.flag("class_agnostic_nms", default=False):
        raise NotServedError("class_agnostic_nms: is not served, boxes of different classes may overlap")
    asked.number("text_threshold", GROUNDING_DINO_SCORE)  # phrases are told apart by their best token
    return await _detect(asked, "box_threshold", GROUNDING_DINO_SCORE, asked.version(_VERSION, "default"))


async def yolo_world(asked: Asked) -> Tree:
    """Find objects with Grounding DINO, whatever version of YOLO-World is asked for."""
    return await _detect(asked, "confidence", YOLO_WORLD_SCORE, "")


async def _detect(asked: Asked, threshold: str, least: float, model: str) -> Tree:
    phrases = asked.required("text")
    if not isinstance(phrases, list):
        raise InvalidArgumentError("text", "must be a list of words to look for")
    request = {
        "image": asked.image(),
        "query": {"phrases": {"values": phrases}, "min_score": asked.number(threshold, least)},
        "model": model,
    }
    names = {
        **IMAGE_NAMES,
        "query": "text",
        "query.phrases": "text",
        "query.phrases.values": "text",
        "query.min_score": threshold,
        "model": _VERSION,
    }
    response = await asked.call("DetectObjects", request, names)
    return {
        "image": {"width": response.image.width, "height": response.image.height},
        "predictions": (
            prediction(centred_box(found.box), found.score, found.phrase, found.phrase_index)
            for found in response.detections
        ),
        "time": asked.seconds(),
    }

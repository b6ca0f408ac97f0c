"""What the SDK asks of SAM 2 and SAM 3, answered by the segmentation models of this server.

Their default version is sent whether the caller wants it or not. So a version that is not here is no error.
"""

from gateway.errors import InvalidArgumentError
from gateway.http.inference_sdk import masks
from gateway.http.inference_sdk.asked import IMAGE_NAMES, MAX_ITEMS, Asked, check_count
from gateway.http.inference_sdk.boxes import box_tree
from gateway.http.inference_sdk.errors import NotServedError
from gateway.http.inference_sdk.sam import image_or_id
from gateway.http.json_text import Tree

MAX_CONCEPTS = 16
"""Each is a call of its own."""
CONCEPT_SCORE = 0.5
_VERSION = "sam2_version_id"
_NAMES = {**IMAGE_NAMES, "image.image_id": "image_id"}


async def embed_image(asked: Asked) -> Tree:
    """Encode an image ahead of time. Its id is made of the image, not the one that the caller gives."""
    response = await asked.call("EncodeImage", {"image": asked.image(), "model": await _model(asked)}, _NAMES)
    return {"image_id": response.image.image_id, "time": asked.seconds()}


async def segment_image(asked: Asked) -> Tree:
    """Segment what prompts point at, by SAM 2's or SAM 3's route: the best mask of each."""
    name = masks.format_of(asked, "json")
    request = {
        "image": image_or_id(asked),
        "prompts": [_prompt(prompt, f"prompts[{index}]") for index, prompt in enumerate(_prompts(asked))],
        "multimask": asked.flag("multimask_output", default=True),
        "mask_format": masks.api_format(name),
        "model": await _model(asked),
    }
    response = await asked.call("SegmentRegions", request, _NAMES)
    best = (region.masks[0] for region in response.regions)
    predictions = (masks.prediction(mask, mask.predicted_iou, name) for mask in best)
    return {"predictions": predictions, "time": asked.seconds()}


async def segment_concepts(asked: Asked) -> Tree:
    """Segment what words name, by SAM 3's route: each prompt by itself, its box found by Grounding DINO."""
    if "nms_iou_threshold" in asked.body:
        raise NotServedError("nms_iou_threshold: is not served, leave it out")
    name = masks.format_of(asked, "polygon")
    image = asked.image()
    least = asked.number("output_prob_thresh", CONCEPT_SCORE)
    results = []
    for index, prompt in enumerate(_concepts(asked)):
        path = f"prompts[{index}]"
        text = _text_of_concept(prompt, path)
        own = prompt.get("output_prob_thresh")
        request = {
            "image": image,
            "query": {"phrases": {"values": [text]}, "min_score": least if own is None else own},
            "mask_format": masks.api_format(name),
        }
        names = {
            **IMAGE_NAMES,
            "query": f"{path}.text",
            "query.phrases.values[0]": f"{path}.text",
            "query.min_score": "output_prob_thresh" if own is None else f"{path}.output_prob_thresh",
        }
        response = await asked.call("SegmentPhrases", request, names)
        echo = {"prompt_index": index, "type": "text", "text": text, "num_boxes": 0}
        predictions = (
            masks.prediction(found.mask, found.detection.score, name) for found in response.objects
        )
        results.append({"prompt_index": index, "echo": echo, "predictions": predictions})
    return {"prompt_results": iter(results), "time": asked.seconds()}


async def _model(asked: Asked) -> str:
    """Return the variant that the request names, if the server has it; else empty, for the default one."""
    version = asked.version(_VERSION)
    if not version:
        return ""
    models = (await asked.call("ListModels", {}, {})).models
    return (
        version if any((model.task, model.variant) == ("segmentation", version) for model in models) else ""
    )


def _prompts(asked: Asked) -> list[Tree]:
    """Return the prompts: an object with a list of them, the list itself, or a single one."""
    value = asked.body.get("prompts")
    if isinstance(value, dict):
        value = value.get("prompts") if "prompts" in value else [value]
    if value is None:
        raise NotServedError(
            "prompts: none are given, say with points or boxes what to segment; "
            "POST /v1/everything:segment segments everything"
        )
    return _checked(value, MAX_ITEMS)


def _concepts(asked: Asked) -> list[Tree]:
    return _checked(asked.required("prompts"), MAX_CONCEPTS)


def _checked(prompts: Tree, most: int) -> list[Tree]:
    if not isinstance(prompts, list):
        raise InvalidArgumentError("prompts", "must be a list")
    check_count(len(prompts), "prompts", most)
    return prompts


def _prompt(value: Tree, path: str) -> Tree:
    """Return a prompt as the API takes it."""
    if not isinstance(value, dict):
        raise InvalidArgumentError(path, "must be an object with a box, or points, or both")
    prompt: dict[str, Tree] = {}
    if value.get("box") is not None:
        prompt["box"] = box_tree(value["box"], f"{path}.box")
    if value.get("points") is not None:
        if not isinstance(value["points"], list):
            raise InvalidArgumentError(f"{path}.points", "must be a list")
        prompt["points"] = [
            _point(point, f"{path}.points[{index}]") for index, point in enumerate(value["points"])
        ]
    return prompt


def _point(value: Tree, path: str) -> Tree:
    if not isinstance(value, dict) or not isinstance(value.get("positive"), bool):
        raise InvalidArgumentError(path, "must be an object with x, y, and positive: true or false")
    label = "POINT_LABEL_FOREGROUND" if value["positive"] else "POINT_LABEL_BACKGROUND"
    return {"point": {"x": value.get("x"), "y": value.get("y")}, "label": label}


def _text_of_concept(prompt: Tree, path: str) -> Tree:
    if not isinstance(prompt, dict):
        raise InvalidArgumentError(path, 'must be an object: {"type": "text", "text": …}')
    if prompt.get("type", "text") != "text" or prompt.get("boxes"):
        raise NotServedError(f"{path}: only text is served; POST /sam3/visual_segment takes boxes")
    if prompt.get("text") is None:
        raise InvalidArgumentError(f"{path}.text", "is missing")
    return prompt["text"]

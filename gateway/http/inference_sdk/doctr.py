"""Text of pages, by docTR."""

from collections.abc import Iterator
from typing import Any

from gateway.http.inference_sdk.asked import Asked
from gateway.http.inference_sdk.boxes import centred, prediction
from gateway.http.json_text import Tree

_VERSION = "doctr_version_id"


async def ocr(asked: Asked) -> Tree:
    """Read one page, or several, with the words' boxes if the request wants them."""
    images = asked.images()
    with_boxes = asked.flag("generate_bounding_boxes", default=False)
    request = {"images": images.trees, "strict": True, "model": asked.version(_VERSION, "default")}
    response = await asked.call("RecognizeText", request, {**images.names(), "model": _VERSION})
    seconds = asked.seconds()
    answers = (_answer(result.page, seconds, with_boxes=with_boxes) for result in response.results)
    return answers if images.is_list else next(answers)


def _answer(page: Any, seconds: float, *, with_boxes: bool) -> Tree:
    words = [word for block in page.blocks for line in block.lines for word in line.words]
    answer = {"result": " ".join(word.text for word in words), "time": seconds, "parent_id": None}
    if with_boxes:
        answer["image"] = {"width": page.image.width, "height": page.image.height}
        answer["predictions"] = _predictions(words)
    return answer


def _predictions(words: list[Any]) -> Iterator[Tree]:
    for word in words:
        xs = [corner.x for corner in word.quadrilateral.corners]
        ys = [corner.y for corner in word.quadrilateral.corners]
        box = centred(min(xs), min(ys), max(xs), max(ys))
        yield prediction(box, word.confidence, word.text, 0)

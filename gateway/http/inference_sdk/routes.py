"""The routes of inference-sdk: what answers each, and which are refused with a reason."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial

from gateway.http import translation
from gateway.http.calls import Calls
from gateway.http.exchange import Answer, Exchange
from gateway.http.inference_sdk import clip, detection, doctr, gaze, sam, segmentation, server
from gateway.http.inference_sdk.asked import Asked
from gateway.http.inference_sdk.errors import NotServedError
from gateway.http.json_text import Tree

Operation = Callable[[Asked], Awaitable[Tree]]
Handler = Callable[[Exchange], Awaitable[Answer]]

SERVED: Mapping[tuple[str, str], Operation] = {
    ("GET", "/model/registry"): server.registry,
    ("POST", "/clip/embed_image"): clip.embed_image,
    ("POST", "/clip/embed_text"): clip.embed_text,
    ("POST", "/clip/compare"): clip.compare,
    ("POST", "/doctr/ocr"): doctr.ocr,
    ("POST", "/gaze/gaze_detection"): gaze.detect,
    ("POST", "/grounding_dino/infer"): detection.grounding_dino,
    ("POST", "/yolo_world/infer"): detection.yolo_world,
    ("POST", "/sam/segment_image"): sam.segment_image,
    ("POST", "/sam2/embed_image"): segmentation.embed_image,
    ("POST", "/sam2/segment_image"): segmentation.segment_image,
    ("POST", "/sam3/embed_image"): segmentation.embed_image,
    ("POST", "/sam3/visual_segment"): segmentation.segment_image,
    ("POST", "/sam3/concept_segment"): segmentation.segment_concepts,
}
NOT_SERVED: Mapping[str, str] = {
    "/sam/embed_image": "embeddings of SAM stay on the server; POST /sam2/embed_image keeps one and names it",
    "/perception_encoder/{rest:path}": "there is no such model here; /clip/embed_image and embed_text embed",
    "/ocr/{rest:path}": "there is no such model here; /doctr/ocr reads text",
    "/easy_ocr/{rest:path}": "there is no such model here; /doctr/ocr reads text",
    "/sam3_3d/{rest:path}": "there is no such model here",
    "/owlv2/{rest:path}": "there is no such model here; /grounding_dino/infer finds what words name",
    "/infer/{rest:path}": "models of Roboflow's, and workflows, are not run here",
    "/workflows/{rest:path}": "workflows are not run here",
    "/inference_pipelines/{rest:path}": "pipelines of video are not run here",
    "/model/add": "models are loaded by the server's operator alone",
    "/model/remove": "models are unloaded by the server's operator alone",
    "/model/clear": "models are unloaded by the server's operator alone",
}
"""Why each path is refused, which may end in a pattern of Starlette's."""


def handlers(calls: Calls) -> Iterator[tuple[list[str], str, Handler]]:
    """Yield methods, a path, and what answers them."""
    yield ["GET"], "/info", server.info
    for (method, path), operation in SERVED.items():
        yield [method], path, partial(_answer, operation, calls)
    for path, reason in NOT_SERVED.items():
        yield ["GET", "POST"], path, partial(_refuse, reason)


async def _answer(operation: Operation, calls: Calls, exchange: Exchange) -> Answer:
    return Answer(translation.write(await operation(await Asked.read(calls, exchange))))


async def _refuse(reason: str, exchange: Exchange) -> Answer:
    raise NotServedError(f"{exchange.scope['path']}: {reason}")

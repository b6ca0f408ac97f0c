"""Calls of the unmodified inference-sdk, for a Python that has it: build/compat/1.8.3/bin/python.

`sdk_calls.py call URL KEY PICTURE` makes them and prints their answers as JSON, or how they failed.
`sdk_calls.py record PICTURE` writes down what they send, for tests that run without the SDK:
tests/http/recorded/*.json. In the place of pictures stands PICTURE there.

The coordinates are those of the demo's picture.
"""

import asyncio
import contextlib
import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import inference_sdk
from inference_sdk import InferenceConfiguration, InferenceHTTPClient
from inference_sdk.http.errors import HTTPCallErrorError

FOLDER = Path(__file__).parents[1] / "http" / "recorded"
KEY = "vg_recorded"
BOX = {"x": 136.0, "y": 252.0, "width": 220.0, "height": 220.0}
POINTS = [{"x": 136, "y": 252, "positive": True}, {"x": 420, "y": 560, "positive": False}]

Call = Callable[[InferenceHTTPClient, str], Any]
CALLS: Mapping[str, Call] = {
    "clip_embed_image": lambda sdk, picture: sdk.get_clip_image_embeddings(picture),
    "clip_embed_images": lambda sdk, picture: sdk.configure(
        InferenceConfiguration(max_batch_size=2)
    ).get_clip_image_embeddings([picture, picture]),
    "clip_embed_text": lambda sdk, _: sdk.get_clip_text_embeddings("a red circle"),
    "clip_embed_texts": lambda sdk, _: sdk.get_clip_text_embeddings(["a red circle", "a face"]),
    "clip_compare_texts": lambda sdk, picture: sdk.clip_compare(picture, ["a red circle", "a face"]),
    "clip_compare_images": lambda sdk, picture: sdk.clip_compare(
        "a face", [picture, picture], subject_type="text", prompt_type="image"
    ),
    "clip_compare_named": lambda sdk, picture: sdk.clip_compare(
        picture, {"one": "a circle", "two": "a face"}
    ),
    "ocr": lambda sdk, picture: sdk.ocr_image(picture),
    "ocr_boxes": lambda sdk, picture: sdk.ocr_image(picture, generate_bounding_boxes=True),
    "yolo_world": lambda sdk, picture: sdk.infer_from_yolo_world(
        picture, ["red circle", "blue square"], confidence=0.3
    ),
    "sam2_polygons": lambda sdk, picture: sdk.sam2_segment_image(picture, [{"box": BOX}]),
    "sam2_rle": lambda sdk, picture: sdk.sam2_segment_image(
        picture, [{"points": POINTS}], multimask_output=False, mask_input_format="rle"
    ),
    "sam3_visual": lambda sdk, picture: sdk.sam3_visual_segment(picture, [{"box": BOX, "points": POINTS}]),
    "sam3_concept": lambda sdk, picture: sdk.sam3_concept_segment(
        picture, [{"type": "text", "text": "red circle"}, {"type": "text", "text": "face"}]
    ),
    "sam3_embed": lambda sdk, picture: sdk.sam3_embed_image(picture, image_id="mine"),
    "clip_embed_text_header": lambda sdk, _: sdk.configure(
        InferenceConfiguration(api_key_transport="header")
    ).get_clip_text_embeddings("a red circle"),
    "clip_embed_text_async": lambda sdk, _: asyncio.run(sdk.get_clip_text_embeddings_async("a red circle")),
    "not_served": lambda sdk, picture: sdk.ocr_image(picture, model="trocr"),
    "wrong": lambda sdk, _: sdk.get_clip_text_embeddings(["a", ""]),
    "info": lambda sdk, _: sdk.get_server_info().to_dict(),
    "registry": lambda sdk, _: sdk.list_loaded_models().to_dict(),
    "gaze": lambda sdk, picture: sdk.detect_gazes(picture),
}


class Recorder(BaseHTTPRequestHandler):
    """Keeps the last request, and answers none."""

    last: dict[str, Any]

    def do_POST(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        Recorder.last = {
            "client": f"inference-sdk {inference_sdk.__version__}",
            "method": self.command,
            "path": self.path,
            "headers": {
                name: self.headers[name] for name in ("content-type", "authorization") if name in self.headers
            },
            "body": without_pictures(json.loads(body)) if body else None,
        }
        self.send_response(400)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def without_pictures(tree: Any) -> Any:
    """Put PICTURE in the place of long strings."""
    if isinstance(tree, dict):
        return {name: without_pictures(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [without_pictures(value) for value in tree]
    return "PICTURE" if isinstance(tree, str) and len(tree) > 1000 else tree


def calls() -> Iterator[tuple[str, Call]]:
    """Yield the calls for this version of the SDK: the earlier one is for gaze, which the later has not."""
    for name, call in CALLS.items():
        if (name == "gaze") == inference_sdk.__version__.startswith("1.2."):
            yield name, call


def record(picture: str) -> None:
    """Write down each call that sends something of its own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, call in calls():
        sdk = InferenceHTTPClient(api_url=f"http://127.0.0.1:{server.server_port}", api_key=KEY)
        with contextlib.suppress(Exception):
            call(sdk, picture)
        (FOLDER / f"{name}.json").write_text(json.dumps(Recorder.last, indent=1) + "\n")
    server.shutdown()


def call_all(url: str, key: str, picture: str) -> None:
    """Print the answer of each call."""
    answers: dict[str, Any] = {}
    for name, call in calls():
        try:
            answers[name] = call(InferenceHTTPClient(api_url=url, api_key=key), picture)
        except HTTPCallErrorError as error:
            answers[name] = {"status": error.status_code, "message": error.api_message}
    print(json.dumps(answers))


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command == "record":
        record(*arguments)
    else:
        call_all(*arguments)

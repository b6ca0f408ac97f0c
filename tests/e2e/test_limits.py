"""Every limit of the settings is one: what is over it is refused by field and limit, what is at it is not."""

import re
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from bad_input import encoded
from gateway.models.image import PEAK_BYTES_PER_PIXEL
from gateway.server import Gateway
from gateway.settings import Settings
from visiongate import AsyncClient, Text, VisiongateError
from visiongate.operations import Operation, detection, embedding, everything, gaze, segmentation, text

PHOTO = Image.effect_noise((80, 60), 90).convert("RGB")
PIXELS = np.asarray(PHOTO)
FILE = encoded(PHOTO, "PNG")
WIDER = encoded(Image.new("L", (81, 60)), "PNG")
BOX: Any = [[5.0, 5.0, 50.0, 50.0]]
ALL: Any = {"min_predicted_iou": 0, "min_stability_score": 0, "nms_iou_threshold": 1}

LIMITS = {
    "max_message_bytes": 100_000,
    "max_image_bytes": len(FILE),
    "max_image_pixels": 80 * 60,
    "max_images": 2,
    "max_pages": 2,
    "max_texts": 3,
    "max_phrases": 3,
    "max_text_length": 40,
    "max_prompts": 4,
    "max_grid_points": 4,
    "max_mask_pixels": 3 * 80 * 60,
    "max_detections": 5,
    "max_faces": 2,
    "max_response_bytes": 60_000,
}


@pytest.fixture(scope="module")
async def client(demo_settings: Settings) -> AsyncIterator[AsyncClient]:
    """Of a gateway with small limits."""
    settings = demo_settings.model_copy(update=LIMITS)
    async with Gateway(settings) as gateway, AsyncClient(f"127.0.0.1:{gateway.port}") as connected:
        yield connected


@pytest.mark.parametrize(
    ("operation", "field", "limit"),
    [
        (segmentation.encode_image(FILE + b"x"), "image.encoded", "max_image_bytes"),
        (segmentation.encode_image(WIDER), "image.encoded", "max_image_pixels"),
        (segmentation.encode_image(np.zeros((61, 80, 3), np.uint8)), "image.raw", "max_image_pixels"),
        (embedding.embed_images([FILE, FILE + b"x"]), "images[1].encoded", "max_image_bytes"),
        (embedding.embed_images([FILE] * 3), "images", "max_images"),
        (embedding.classify([FILE] * 3, ["dog"]), "images", "max_images"),
        (embedding.compare(Text("dog"), [FILE] * 3), "candidates", "max_images"),
        (text.recognize_text([FILE] * 3), "images", "max_pages"),
        (embedding.embed_texts(["dog"] * 4), "texts", "max_texts"),
        (embedding.classify([FILE], ["dog"] * 4), "labels", "max_texts"),
        (embedding.compare(FILE, [Text("dog")] * 4), "candidates", "max_texts"),
        (detection.detect(FILE, ["dog", "cat", "cow", "ox"]), "query.phrases", "max_phrases"),
        (detection.detect(FILE, ["d" * 20, "c" * 21]), "query.phrases", "max_text_length"),
        (segmentation.segment_phrases(FILE, caption="d" * 41), "query.caption", "max_text_length"),
        (embedding.embed_texts(["dog", "d" * 41]), "texts[1]", "max_text_length"),
        (embedding.classify([FILE], ["d" * 41]), "labels[0]", "max_text_length"),
        (
            embedding.classify([FILE], ["dog"], prompt_template="{}" * 21),
            "prompt_template",
            "max_text_length",
        ),
        (embedding.compare(Text("d" * 41), [FILE]), "subject.text", "max_text_length"),
        (segmentation.segment(FILE, boxes=BOX * 5), "prompts", "max_prompts"),
        (everything.segment_everything(FILE, points_per_side=3), "points_per_side", "max_grid_points"),
        (
            everything.segment_everything(FILE, points_per_side=2, crop_layers=1),
            "points_per_side",
            "max_grid_points",
        ),
        # The logits of a mask are 80 x 80 floats.
        (segmentation.segment(FILE, boxes=BOX * 3, include_logits=True), "prompts", "max_response_bytes"),
        (
            segmentation.segment(FILE, boxes=BOX, multimask=True, include_logits=True),
            "prompts",
            "max_response_bytes",
        ),
        (segmentation.segment(FILE, boxes=BOX * 4), "prompts", "max_mask_pixels"),
        (segmentation.segment(FILE, boxes=BOX * 2, multimask=True), "prompts", "max_mask_pixels"),
        (
            segmentation.segment_phrases(FILE, ["dog"], min_score=0),
            "query.max_detections",
            "max_mask_pixels",
        ),
        (everything.segment_everything(FILE, points_per_side=2, **ALL), "max_masks", "max_mask_pixels"),
        (detection.detect(FILE, ["dog"], max_detections=6), "query.max_detections", "max_detections"),
        (gaze.estimate_gaze(FILE, max_faces=3), "query.max_faces", "max_faces"),
        (gaze.estimate_gaze(FILE, boxes=BOX * 3), "boxes.boxes", "max_faces"),
    ],
)  # fmt: skip
async def test_over_a_limit(client: AsyncClient, operation: Operation[Any], field: str, limit: str) -> None:
    with pytest.raises(VisiongateError) as caught:
        await client.call(operation)
    assert (caught.value.code, caught.value.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert re.search(rf"(limit is|must be 1 to) {LIMITS[limit]}\b", caught.value.message)


@pytest.mark.parametrize(
    "operation",
    [
        segmentation.encode_image(FILE),
        segmentation.encode_image(PIXELS),
        embedding.embed_images([FILE, PIXELS]),
        embedding.embed_texts(["dog", "cat", "ox"]),
        embedding.classify([FILE] * 2, ["dog", "cat", "d" * 40], truncate=True),
        embedding.compare(FILE, [FILE, PIXELS, Text("dog"), Text("cat"), Text("ox")]),
        detection.detect(FILE, ["dog", "cat", "ox"]),
        segmentation.segment(FILE, boxes=BOX * 3),
        segmentation.segment(FILE, boxes=BOX * 2, include_logits=True),
        segmentation.segment(FILE, boxes=BOX, multimask=True),
        segmentation.segment_phrases(FILE, ["dog"], min_score=0, max_detections=3),
        everything.segment_everything(FILE, points_per_side=2, max_masks=3, **ALL),
    ],
)
async def test_at_a_limit(client: AsyncClient, operation: Operation[Any]) -> None:
    await client.call(operation)


async def test_a_message_over_the_limit(client: AsyncClient) -> None:
    with pytest.raises(VisiongateError) as caught:
        await client.encode_image(bytes(LIMITS["max_message_bytes"]))
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    await client.encode_image(FILE)


def test_every_limit_is_tested() -> None:
    limits = {name for name in Settings.model_fields if name.startswith("max_") and not name.endswith("_s")}
    # Those of a process are in tests/test_admission.py and tests/test_connection_guard.py.
    limits -= {"max_concurrent_calls", "max_bytes_in_flight", "max_caller_share", "max_connections_per_peer"}
    assert limits == set(LIMITS)


@pytest.mark.parametrize(("max_image_pixels", "warns"), [(2_000_000, False), (4_000_000, True)])
async def test_an_image_that_takes_more_memory_than_there_is_for_it_is_told_at_the_start(
    demo_settings: Settings, caplog: pytest.LogCaptureFixture, max_image_pixels: int, warns: bool
) -> None:
    limits = {"max_image_pixels": max_image_pixels, "max_bytes_in_flight": 100_000_000}
    async with Gateway(demo_settings.model_copy(update=limits)):
        pass
    assert ("may take 68 MB while it is decoded" in caplog.text) is warns


def test_the_defaults_suit_each_other() -> None:
    defaults = Settings()
    decoding = PEAK_BYTES_PER_PIXEL * defaults.max_image_pixels
    assert decoding <= 1.02 * defaults.max_bytes_in_flight / 2
    assert defaults.max_image_bytes < defaults.max_message_bytes

"""docTR's route against the same question over gRPC, and as supervision reads it."""

import base64

import httpx
import numpy as np
import pytest
import supervision

from recorded_calls import answer, refusal
from visiongate import AsyncClient


async def test_the_words_of_one_page(
    sdk_http: httpx.AsyncClient, demo_client: AsyncClient, picture: bytes
) -> None:
    found = await answer(sdk_http, "ocr", picture)
    [page] = await demo_client.recognize_text([picture])
    words = list(page.words())
    assert found["result"] == " ".join(word.text for word in words)
    assert set(found["result"].split()) >= {"Triton", "2026"}
    assert "predictions" not in found
    boxed = await answer(sdk_http, "ocr_boxes", picture)
    assert boxed["result"] == found["result"]
    assert boxed["image"] == {"width": 800, "height": 600}
    detections = supervision.Detections.from_inference(boxed)
    assert list(detections.data["class_name"]) == [word.text for word in words]
    for box, word in zip(detections.xyxy, words, strict=True):
        np.testing.assert_allclose(box, [*word.quadrilateral.min(0), *word.quadrilateral.max(0)], atol=0.01)
    assert detections.confidence == pytest.approx([word.confidence for word in words], abs=1e-5)


async def test_a_list_is_answered_by_a_list(sdk_http: httpx.AsyncClient, picture: bytes) -> None:
    image = {"type": "base64", "value": base64.b64encode(picture).decode()}
    pages = await answer(sdk_http, "ocr", picture, image=[image, image])
    alone = await answer(sdk_http, "ocr", picture)
    assert [page["result"] for page in pages] == [alone["result"]] * 2
    assert all(page["time"] > 0 for page in pages)
    assert await answer(sdk_http, "ocr", picture, image=[]) == []


async def test_errors(sdk_http: httpx.AsyncClient, picture: bytes) -> None:
    assert await answer(sdk_http, "ocr", picture, doctr_version_id="default")
    status, message = await refusal(sdk_http, "ocr", picture, doctr_version_id="none such")
    assert (status, message.partition(":")[0]) == (400, "doctr_version_id")
    status, message = await refusal(sdk_http, "ocr", picture, generate_bounding_boxes="yes")
    assert (status, message) == (400, "generate_bounding_boxes: must be true or false")

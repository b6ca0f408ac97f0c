"""Grounding DINO's and YOLO-World's routes against the same question over gRPC, and in supervision."""

import base64
import json
from typing import Any

import httpx
import numpy as np
import pytest
import supervision

from recorded_calls import FOLDER, answer, refusal, send
from visiongate import AsyncClient

PHRASES = ["red circle", "blue square", "yellow star"]


async def test_detections_are_those_of_the_api(
    sdk_http: httpx.AsyncClient, demo_client: AsyncClient, picture: bytes
) -> None:
    found = await answer(sdk_http, "yolo_world", picture, text=PHRASES)
    expected = await demo_client.detect(picture, PHRASES, min_score=0.3)
    assert {item.phrase for item in expected} == set(PHRASES)
    detections = supervision.Detections.from_inference(found)
    np.testing.assert_allclose(detections.xyxy, [item.box for item in expected], atol=0.01)
    assert list(detections.data["class_name"]) == [item.phrase for item in expected]
    assert np.asarray(detections.class_id).tolist() == [PHRASES.index(item.phrase) for item in expected]
    assert detections.confidence == pytest.approx([item.score for item in expected], abs=1e-5)
    assert len({item["detection_id"] for item in found["predictions"]}) == len(expected)
    assert found["image"] == {"width": 800, "height": 600}


async def grounding_dino(client: httpx.AsyncClient, picture: bytes, **changes: Any) -> Any:
    """The same body to the other route, which no method of the SDK calls."""
    recorded = json.loads((FOLDER / "yolo_world.json").read_text())
    body = {**recorded["body"], "confidence": None, **changes}
    body["image"]["value"] = base64.b64encode(picture).decode()
    return await client.post("/grounding_dino/infer", json=body)


async def test_thresholds_are_theirs(sdk_http: httpx.AsyncClient, picture: bytes) -> None:
    """What a caller leaves out is 0.5 for Grounding DINO and 0.4 for YOLO-World, not our models' own."""
    every = await grounding_dino(sdk_http, picture, box_threshold=0.0)
    scores = [item["confidence"] for item in every.json()["predictions"]]
    assert min(scores) < 0.4
    default = (await grounding_dino(sdk_http, picture)).json()["predictions"]
    assert [item["confidence"] for item in default] == [score for score in scores if score >= 0.5]
    yolo = await answer(sdk_http, "yolo_world", picture, confidence=None)
    assert [item["confidence"] for item in yolo["predictions"]] == [score for score in scores if score >= 0.4]
    assert (await grounding_dino(sdk_http, picture, box_threshold=1.0)).json()["predictions"] == []


@pytest.mark.parametrize(
    ("changes", "status", "says"),
    [
        ({"text": None}, 400, "text: is missing"),
        ({"text": "a cat"}, 400, "text: must be a list of words"),
        ({"text": []}, 400, "text: has neither phrases"),
        ({"text": ["a", " "]}, 400, "text[1]: is empty"),
        ({"text": ["a", 3]}, 400, "text[1]: must be a string"),
        ({"confidence": 1.5}, 400, "confidence: is 1.5; it must be 0 to 1"),
        ({"confidence": "high"}, 400, "confidence: must be a number, and is a string"),
        ({"image": {"type": "url", "value": "https://example.com/a.png"}}, 400, "image.value: "),
        ({"image": {"type": "numpy", "value": "gAN="}}, 400, "image.type: numpy is a pickle"),
        ({"image": {"type": "file", "value": "/etc/passwd"}}, 400, "image.type: must be base64 or url"),
        ({"image": {"type": "base64"}}, 400, "image.value: is missing"),
        ({"image": {"type": "base64", "value": "?"}}, 400, "image.value: is not base64"),
        ({"image": []}, 400, "image: must be one image here, and is 0"),
    ],
)
async def test_errors_name_the_callers_fields(
    sdk_http: httpx.AsyncClient, picture: bytes, changes: dict[str, Any], status: int, says: str
) -> None:
    found = await refusal(sdk_http, "yolo_world", picture, **changes)
    assert (found[0], found[1][: len(says)]) == (status, says)


async def test_what_grounding_dino_does_not_do_here(sdk_http: httpx.AsyncClient, picture: bytes) -> None:
    refused = await grounding_dino(sdk_http, picture, class_agnostic_nms=True)
    assert (refused.status_code, refused.json().keys()) == (501, {"message"})
    assert (await grounding_dino(sdk_http, picture, class_agnostic_nms=False)).status_code == 200
    unknown = await grounding_dino(sdk_http, picture, grounding_dino_version_id="huge")
    assert unknown.json()["message"].startswith("grounding_dino_version_id: no variant 'huge'")
    assert (await grounding_dino(sdk_http, picture, grounding_dino_version_id="default")).status_code == 200
    # Fields of other servers mean nothing.
    assert (await send(sdk_http, "yolo_world", picture, usage_billable=True, id="x")).status_code == 200

"""Hostile requests: each is refused with a reason, none of them is worked on, and the server goes on."""

import asyncio
import itertools
import logging

import httpx
import pytest
from prometheus_client import REGISTRY

import hostile_http
from gateway.settings import Settings
from http_front import serving
from inference_counts import InferenceCounts

DAMAGED = 250
AT_ONCE = 4
MODELS = ("grounding_dino", "clip_image", "clip_text", "sam_encoder", "gaze", "doctr_detection")


def test_there_are_enough() -> None:
    requests = [*hostile_http.written()]
    assert len(requests) > 250
    assert len({request.name for request in requests}) == len(requests)
    assert [*hostile_http.damaged(20, seed=3)] == [*hostile_http.damaged(20, seed=3)]


async def test_hostile_requests(demo_settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    requests = itertools.chain(hostile_http.written(), hostile_http.damaged(DAMAGED, seed=1))
    counts = InferenceCounts.at(demo_settings.triton)
    async with serving(demo_settings) as front, httpx.AsyncClient(base_url=front.url, timeout=60) as client:
        before = {model: await counts.settled_soon(model) for model in MODELS}
        with caplog.at_level(logging.ERROR):
            statuses = await hostile_http.besiege(front.port, requests, AT_ONCE)
        assert sum(statuses.values()) > 500
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert (await client.get("/v1/models")).status_code == 200
        assert (await client.post("/v1/texts:embed", json={"texts": []})).status_code == 200
        await asyncio.sleep(0.1)
        for name in ("calls_in_flight", "bytes_in_flight", "http_bytes"):
            assert REGISTRY.get_sample_value(f"visiongate_{name}") == 0
        assert {model: await counts.settled_soon(model) for model in MODELS} == before

"""The HTTP front before the gateways that other tests have."""

from collections.abc import AsyncIterator

import httpx
import pytest

from gateway.settings import Settings
from http_front import serving


@pytest.fixture(scope="session")
async def http(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a front before the toy models."""
    async with serving(settings) as front, httpx.AsyncClient(base_url=front.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
async def demo_http(demo_settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a front before the demo models, whose answers mean something."""
    async with serving(demo_settings) as front, httpx.AsyncClient(base_url=front.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
async def sdk_http(demo_settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """The same with the routes of inference-sdk."""
    settings = demo_settings.model_copy(update={"inference_sdk_routes": True})
    async with serving(settings) as front, httpx.AsyncClient(base_url=front.url, timeout=60) as client:
        yield client

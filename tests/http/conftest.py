"""The HTTP front before the gateways that other tests have."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from gateway.http.front import HttpFront
from gateway.server import Gateway
from gateway.settings import Settings


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[HttpFront]:
    """A gateway with its HTTP front, as `visiongate serve --http-port` has them."""
    async with (
        HttpFront(settings.model_copy(update={"http_port": 0})) as front,
        Gateway(settings, loopback=front.loopback) as gateway,
    ):
        front.begin(gateway)
        yield front


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

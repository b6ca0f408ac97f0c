"""A gateway with its HTTP front, for tests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.http.front import HttpFront
from gateway.server import Gateway
from gateway.settings import Settings


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[HttpFront]:
    """Run both, as `visiongate serve --http-port` does, on any free port."""
    async with (
        HttpFront(settings.model_copy(update={"http_port": 0})) as front,
        Gateway(settings, loopback=front.loopback) as gateway,
    ):
        front.begin(gateway)
        yield front

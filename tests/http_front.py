"""A gateway with its HTTP front, for tests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.http.front import HttpFront
from gateway.server import Gateway
from gateway.settings import Settings


@asynccontextmanager
async def serving_both(settings: Settings) -> AsyncIterator[tuple[Gateway, HttpFront]]:
    """Run both, as `visiongate serve --http-port` does, on any free port unless `http_port` names one."""
    async with (
        HttpFront(settings.model_copy(update={"http_port": settings.http_port or 0})) as front,
        Gateway(settings, loopback=front.loopback) as gateway,
    ):
        front.begin(gateway)
        yield gateway, front


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[HttpFront]:
    """The same, for those who need the front alone."""
    async with serving_both(settings) as (_, front):
        yield front

"""Triton, a gateway and a client around some work, all on this machine, all stopped after it."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from gateway.embedded import EmbeddedTriton
from gateway.server import Gateway
from gateway.settings import Settings
from visiongate import AsyncClient

REPOSITORY = Path(__file__).parent / "repository"
"""The demo models, ready to be served."""

T = TypeVar("T")


def with_client(
    repository: Path, work: Callable[[AsyncClient], Awaitable[T]], progress: Callable[[str], None]
) -> T:
    """Serve a repository, do the work with a client of it, and return what it returns."""

    async def ask(settings: Settings) -> T:
        async with Gateway(settings) as gateway, AsyncClient(f"127.0.0.1:{gateway.port}") as client:
            models = await client.list_models()
            served = ", ".join(f"{model.family} {model.variant}" for model in models)
            progress(f"the gateway answers at 127.0.0.1:{gateway.port} with {served}")
            return await work(client)

    with EmbeddedTriton(repository, progress=progress) as triton:
        progress(f"Triton {triton.grpc_address} has loaded the models")
        return asyncio.run(ask(Settings(triton=triton.grpc_address, repository=repository, port=0)))

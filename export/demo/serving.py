"""Triton, a gateway and a client for some work, all on this machine and stopped after the work."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from gateway.embedded import EmbeddedTriton, in_front_of
from gateway.server import Gateway
from gateway.settings import Settings
from gateway.stopping import StopSignals, until_first
from visiongate import AsyncClient

REPOSITORY = Path(__file__).parent / "repository"
"""The demo models, ready to be served."""

T = TypeVar("T")


def with_client(
    repository: Path, work: Callable[[AsyncClient], Awaitable[T]], progress: Callable[[str], None]
) -> T:
    """Serve a repository, do the work with a client of the server, and return what the work returns.

    Raise SystemExit after a signal that asks to stop.
    """
    answers: list[T] = []

    async def ask(settings: Settings) -> None:
        async with Gateway(settings) as gateway, AsyncClient(f"127.0.0.1:{gateway.port}") as client:
            models = await client.list_models()
            served = ", ".join(f"{model.family} {model.variant}" for model in models)
            progress(f"the gateway answers at 127.0.0.1:{gateway.port} with {served}")
            answers.append(await work(client))

    async def ask_until_stopped(triton: EmbeddedTriton) -> int:
        settings = in_front_of(triton, Settings(repository=repository, port=0, grace_s=0))
        with StopSignals() as stop:
            await until_first(ask(settings), stop.first.wait(), triton.death())
            return stop.exit_code

    with EmbeddedTriton(repository, progress=progress) as triton:
        progress(f"Triton {triton.grpc_address} has loaded the models")
        exit_code = asyncio.run(ask_until_stopped(triton))
    if not answers:
        raise SystemExit(exit_code)
    return answers[0]

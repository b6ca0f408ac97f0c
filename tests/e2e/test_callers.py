"""One caller cannot shut out the others, whatever it does."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import pytest

from gateway.api_keys import ApiKey, write_keys
from gateway.embedded import EmbeddedTriton
from soak.peers import METHOD, large_request
from soak.service import Service, serving
from soak.slow_sender import send_slowly
from visiongate import AsyncClient

MANY = 64
"""As many as the gateway answers calls at a time."""
MAX_BYTES_IN_FLIGHT = 400_000_000


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    """Keys by name; their file is `tmp_path / "keys.toml"`."""
    made = [ApiKey.generate(name) for name in ("greedy", "modest")]
    write_keys(tmp_path / "keys.toml", [key for key, _ in made])
    return {key.name: text for key, text in made}


@pytest.fixture
def keyed(demo_triton: EmbeddedTriton, keys: dict[str, str], tmp_path: Path) -> Iterator[Service]:
    with serving_with(demo_triton, "--api-keys", str(tmp_path / "keys.toml")) as service:
        yield service


@contextmanager
def serving_with(triton: EmbeddedTriton, *arguments: str) -> Iterator[Service]:
    with serving(
        triton.grpc_address, "--max-bytes-in-flight", str(MAX_BYTES_IN_FLIGHT), *arguments
    ) as service:
        yield service


@asynccontextmanager
async def again_and_again(call: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Inside, many callers call, and call again soon after their call has ended."""

    async def caller() -> None:
        while True:
            with contextlib.suppress(OSError):
                await call()
            await asyncio.sleep(0.2)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(caller()) for _ in range(MANY)]
        await asyncio.sleep(1)
        yield
        for task in tasks:
            task.cancel()


async def all_answered(client: AsyncClient) -> None:
    for number in range(20):
        await client.embed_texts([f"text {number}"])


async def test_silent_senders_of_one_key_keep_nobody_else_out(keyed: Service, keys: dict[str, str]) -> None:
    async def silent() -> None:
        await send_slowly(keyed.address, METHOD, key=keys["greedy"])

    async with (
        AsyncClient(keyed.address, api_key=keys["modest"], wait=False) as modest,
        again_and_again(silent),
    ):
        await all_answered(modest)
        assert keyed.refusals().get("caller"), "the others were not at work"


async def test_answers_that_one_key_does_not_take_keep_nobody_else_out(
    keyed: Service, keys: dict[str, str]
) -> None:
    request = large_request()

    async def never_read() -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(keyed.address, options) as channel:
            call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(
                METHOD, request_serializer=None, response_deserializer=None
            )(metadata=[("x-api-key", keys["greedy"])])
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await call.write(request)
                await call.done_writing()
            await call.code()

    pixels = np.zeros((3000, 4000, 3), np.uint8)
    async with (
        AsyncClient(keyed.address, api_key=keys["modest"], wait=False, timeout=60) as modest,
        again_and_again(never_read),
    ):
        held = 0.0
        while held < 0.6 * MAX_BYTES_IN_FLIGHT:
            await asyncio.sleep(0.1)
            held = keyed.metrics()["visiongate_bytes_in_flight"]
        for _ in range(3):
            await modest.embed_images([pixels])


async def test_silent_senders_of_one_address_keep_no_other_out(demo_triton: EmbeddedTriton) -> None:
    with serving_with(demo_triton) as service:

        async def silent() -> None:
            await send_slowly(service.address, METHOD, host="127.0.0.2")

        async with AsyncClient(service.address, wait=False) as client:
            await all_answered(client)
            async with again_and_again(silent):
                await all_answered(client)
                assert service.refusals().get("caller"), "the others were not at work"

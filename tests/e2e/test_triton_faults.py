"""What callers see when Triton dies, is late, or is one of several: real servers, really killed."""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc.aio import InferenceServerClient

from export.demo.serving import REPOSITORY
from gateway import server
from gateway.catalog_loading import CatalogError
from gateway.embedded import EmbeddedTriton
from gateway.errors import TritonUnavailableError
from gateway.metrics import WHOLE_SERVER
from gateway.server import Gateway
from gateway.settings import Settings
from gateway.triton import ModelState
from gateway.triton_servers import GrpcTriton
from inference_counts import InferenceCounts
from visiongate import AsyncClient, VisiongateError

GAZE = "visiongate.v1.GazeService"
DEADLINE_S = 20.0
# What a call may end with while there is no Triton; nothing else, and never silence.
RIGHT_CODES = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small models, that start quickly."""
    folder = tmp_path_factory.mktemp("faces")
    for model in ("face_detection", "gaze"):
        shutil.copytree(REPOSITORY / model, folder / model)
    return folder


@pytest.fixture
def port() -> int:
    """A free port: for a server that starts again where it was, or where none answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def triton(repository: Path) -> Iterator[EmbeddedTriton]:
    """A server that no test kills."""
    with EmbeddedTriton(repository) as server:
        yield server


def settings(repository: Path, addresses: str, **others: Any) -> Settings:
    return Settings(
        triton=addresses, repository=repository, port=0, grace_s=0, health_interval_s=0.1, **others
    )


@pytest.fixture
async def gateway(triton: EmbeddedTriton, repository: Path) -> AsyncIterator[Gateway]:
    async with Gateway(settings(repository, triton.grpc_address)) as server:
        yield server


async def health(gateway: Gateway, service: str) -> int:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        return int((await stub.Check(health_pb2.HealthCheckRequest(service=service))).status)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110 - what another process does sets no event
            await asyncio.sleep(0.05)


def kill(triton: EmbeddedTriton) -> None:
    os.kill(triton.pid, signal.SIGKILL)


def image(seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A picture that no cache has."""
    return np.random.default_rng(seed).integers(0, 256, (120, 160, 3), np.uint8)


async def outcome(client: AsyncClient, seed: int) -> grpc.StatusCode:
    try:
        # With its own box the face need not be found: one model, one request.
        await client.estimate_gaze(image(seed), boxes=[(10, 10, 90, 90)])
    except VisiongateError as error:
        return error.code
    return grpc.StatusCode.OK


async def test_a_killed_triton_costs_no_more_than_the_calls_meanwhile(repository: Path, port: int) -> None:
    """No call outlives its deadline, each failed one says UNAVAILABLE, all is well again by itself."""
    server = EmbeddedTriton(repository, grpc_port=port)
    server.start()
    try:
        async with (
            Gateway(settings(repository, server.grpc_address)) as gateway,
            AsyncClient(f"127.0.0.1:{gateway.port}", timeout=DEADLINE_S, wait=False) as client,
        ):
            outcomes: list[grpc.StatusCode] = []
            is_over = asyncio.Event()

            async def caller(number: int) -> None:
                seed = number * 1_000_000
                while not is_over.is_set():
                    seed += 1
                    # Were a call to hang, it would end as TimeoutError, which no one expects.
                    async with asyncio.timeout(DEADLINE_S + 5):
                        outcomes.append(await outcome(client, seed))

            async def is_down() -> bool:
                return await health(gateway, GAZE) == health_pb2.HealthCheckResponse.NOT_SERVING

            async def is_up() -> bool:
                return await health(gateway, GAZE) == health_pb2.HealthCheckResponse.SERVING

            async with asyncio.TaskGroup() as group:
                for number in range(4):
                    group.create_task(caller(number))
                for _ in range(2):
                    before = len(outcomes)
                    await until(lambda before=before: _is(len(outcomes) > before + 8))  # type: ignore[misc]
                    kill(server)
                    await until(is_down)
                    assert await health(gateway, WHOLE_SERVER) == health_pb2.HealthCheckResponse.NOT_SERVING
                    await asyncio.to_thread(server.stop)
                    await asyncio.to_thread(server.start)
                    await until(is_up)
                is_over.set()
            assert set(outcomes) <= {grpc.StatusCode.OK, *RIGHT_CODES}
            assert grpc.StatusCode.UNAVAILABLE in outcomes
            assert await outcome(client, -1 % 2**32) is grpc.StatusCode.OK
    finally:
        server.stop()


async def _is(value: bool) -> bool:
    return value


async def test_one_dead_address_of_two_costs_no_call(
    triton: EmbeddedTriton, repository: Path, port: int
) -> None:
    addresses = f"127.0.0.1:{port},{triton.grpc_address}"
    async with (
        Gateway(settings(repository, addresses)) as gateway,
        AsyncClient(f"127.0.0.1:{gateway.port}") as client,
    ):
        assert {await outcome(client, seed) for seed in range(40)} == {grpc.StatusCode.OK}


async def test_a_server_killed_under_load_leaves_its_calls_to_the_other(
    triton: EmbeddedTriton, repository: Path
) -> None:
    with EmbeddedTriton(repository) as killed:
        addresses = f"{killed.grpc_address},{triton.grpc_address}"
        async with (
            Gateway(settings(repository, addresses)) as gateway,
            AsyncClient(f"127.0.0.1:{gateway.port}") as client,
        ):
            calls = [asyncio.create_task(outcome(client, seed)) for seed in range(60)]
            await calls[4]
            kill(killed)
            assert set(await asyncio.gather(*calls)) == {grpc.StatusCode.OK}
            assert {await outcome(client, seed) for seed in range(100, 140)} == {grpc.StatusCode.OK}


async def test_a_model_that_one_of_two_lacks_costs_no_call(triton: EmbeddedTriton, repository: Path) -> None:
    """Neither one that it never had, nor one that it loses under load; and health stays as it is."""
    loaded = [f"--load-model={name}" for name in ("face_detection", "gaze")]
    with EmbeddedTriton(repository, model_control="explicit", extra_arguments=loaded) as other:
        unloading = InferenceServerClient(other.grpc_address)
        addresses = f"{triton.grpc_address},{other.grpc_address}"
        async with (
            Gateway(settings(repository, addresses)) as gateway,
            AsyncClient(f"127.0.0.1:{gateway.port}") as client,
        ):
            counts = InferenceCounts.at(other.grpc_address)
            calls = [asyncio.create_task(outcome(client, seed)) for seed in range(60)]
            await calls[4]
            await unloading.unload_model("gaze")
            for _ in range(20):
                assert await health(gateway, GAZE) == health_pb2.HealthCheckResponse.SERVING
                await asyncio.sleep(0.05)
            assert set(await asyncio.gather(*calls)) == {grpc.StatusCode.OK}
            assert {await outcome(client, seed) for seed in range(100, 120)} == {grpc.StatusCode.OK}
            await unloading.load_model("gaze")
            before = counts.now("gaze").inferences

            async def is_back() -> bool:
                assert await outcome(client, random.randrange(1000, 2**31)) is grpc.StatusCode.OK
                return counts.now("gaze").inferences > before

            await until(is_back)
        await unloading.close()


async def test_a_triton_that_hangs_is_not_ready(
    triton: EmbeddedTriton, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.triton_server.HEALTH_TIMEOUT_S", 0.5)

    async def tells(status: int) -> None:
        async def is_told() -> bool:
            return await health(gateway, GAZE) == status

        await until(is_told)

    async with (
        AsyncClient(f"127.0.0.1:{gateway.port}", timeout=1) as hurried,
        AsyncClient(f"127.0.0.1:{gateway.port}", timeout=DEADLINE_S) as client,
    ):
        assert await outcome(client, 1) is grpc.StatusCode.OK
        os.kill(triton.pid, signal.SIGSTOP)
        try:
            assert await outcome(hurried, 2) is grpc.StatusCode.DEADLINE_EXCEEDED
            await tells(health_pb2.HealthCheckResponse.NOT_SERVING)
        finally:
            os.kill(triton.pid, signal.SIGCONT)
        await tells(health_pb2.HealthCheckResponse.SERVING)
        assert await outcome(client, 3) is grpc.StatusCode.OK


async def test_one_of_two_tritons_that_hangs_costs_no_call(
    triton: EmbeddedTriton, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.triton_server.HEALTH_TIMEOUT_S", 0.5)
    seeds = iter(range(10_000))
    with EmbeddedTriton(repository) as other:
        addresses = f"{triton.grpc_address},{other.grpc_address}"
        async with (
            Gateway(settings(repository, addresses)) as gateway,
            AsyncClient(f"127.0.0.1:{gateway.port}", timeout=DEADLINE_S) as client,
        ):

            async def outcomes(number: int) -> set[grpc.StatusCode]:
                return set(await asyncio.gather(*(outcome(client, next(seeds)) for _ in range(number))))

            os.kill(triton.pid, signal.SIGSTOP)
            try:
                # Half of them go there, and to the other once it is found out.
                calls = asyncio.create_task(outcomes(6))
                # Its silence makes nothing unready: the other answers.
                for _ in range(40):
                    assert await health(gateway, GAZE) == health_pb2.HealthCheckResponse.SERVING
                    await asyncio.sleep(0.05)
                assert await calls == {grpc.StatusCode.OK}
                assert await outcomes(50) == {grpc.StatusCode.OK}
                assert await health(gateway, GAZE) == health_pb2.HealthCheckResponse.SERVING
            finally:
                os.kill(triton.pid, signal.SIGCONT)


async def test_callers_that_leave_do_not_bring_triton_down(triton: EmbeddedTriton) -> None:
    """Each at another moment of its request. Cancelled there and then, one of some thousand did."""
    client = GrpcTriton(triton.grpc_address)
    assert not await client.absence()
    face = np.zeros((1, 96, 96, 3), np.uint8)
    requests = [
        (model, {tensor: face}, tuple((await client.config(model)).outputs))
        for model, tensor in (("face_detection", "image"), ("gaze", "face"))
    ]

    async def leave(caller: int) -> None:
        choices = random.Random(caller)
        for _ in range(400):
            request = asyncio.create_task(client.infer(*choices.choice(requests)))
            longest = choices.choice((0, 0.001, 0.01, 0.05, 60))
            await asyncio.wait([request], timeout=choices.uniform(0, longest))
            request.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await request

    try:
        await asyncio.gather(*map(leave, range(12)))
        assert triton.poll() is None
    finally:
        await client.close()


async def test_work_of_a_call_that_is_gone_is_dropped(demo_settings: Settings) -> None:
    """Everything segmented would be dozens of decoder requests: none is sent once the caller has left."""
    async with (
        Gateway(demo_settings) as gateway,
        AsyncClient(f"127.0.0.1:{gateway.port}") as client,
    ):
        counts = InferenceCounts.at(demo_settings.triton)
        before = (await counts.settled_soon("sam_decoder")).inferences
        call = asyncio.create_task(client.segment_everything(image(7), points_per_side=64))
        while counts.now("sam_decoder").inferences == before:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        # What Triton had begun may end; then there is nothing more.
        after = (await counts.settled_soon("sam_decoder")).inferences
        assert after - before < 64 * 64 / demo_settings.decoder_batch / 2


async def test_the_servers_own_limit_ends_calls_without_a_deadline(demo_settings: Settings) -> None:
    hurried = demo_settings.model_copy(update={"max_call_s": 0.05})
    async with (
        Gateway(hurried) as gateway,
        AsyncClient(f"127.0.0.1:{gateway.port}", timeout=3600) as client,
    ):
        with pytest.raises(VisiongateError, match=r"0\.05 seconds") as caught:
            await client.segment_everything(image(8), points_per_side=64)
        assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_gateway_waits_for_models_that_triton_still_loads(
    triton: EmbeddedTriton, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[GrpcTriton] = []

    class Loading(GrpcTriton):
        """Not GrpcTriton itself: other gateways of this process look at their models, too."""

        async def models(self) -> list[ModelState]:
            seen.append(self)
            if len(seen) == 1:
                raise TritonUnavailableError("gone again")
            states = await super().models()
            is_early = len(seen) < 4
            return [replace(state, ready=False, is_changing=True) for state in states] if is_early else states

    monkeypatch.setattr(server, "GrpcTriton", Loading)
    async with Gateway(settings(repository, triton.grpc_address)) as gateway:
        assert len(seen) == 4
        assert await health(gateway, WHOLE_SERVER) == health_pb2.HealthCheckResponse.SERVING
    seen.clear()
    with pytest.raises(CatalogError, match="has not loaded and warmed up model gaze yet"):
        async with Gateway(settings(repository, triton.grpc_address, triton_wait_s=0.3)):
            pass


async def test_a_gateway_serves_what_triton_was_told_to_load() -> None:
    chosen = ("clip_image", "clip_text")
    with EmbeddedTriton(
        REPOSITORY, model_control="explicit", extra_arguments=[f"--load-model={name}" for name in chosen]
    ) as triton:
        async with (
            Gateway(settings(REPOSITORY, triton.grpc_address)) as gateway,
            AsyncClient(f"127.0.0.1:{gateway.port}") as client,
        ):
            assert [variant.family.name for variant in gateway.catalog.variants] == ["clip"]
            assert await health(gateway, WHOLE_SERVER) == health_pb2.HealthCheckResponse.SERVING
            assert (await client.embed_texts(["a red circle"])).shape[0] == 1
            with pytest.raises(VisiongateError) as caught:
                await client.estimate_gaze(np.zeros((8, 8, 3), np.uint8))
            assert caught.value.code is grpc.StatusCode.UNIMPLEMENTED

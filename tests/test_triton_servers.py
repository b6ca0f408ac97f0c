"""The gateway's client of Triton: what it does when its caller is gone, or the request fails."""

import asyncio
import contextlib
import sys
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2

from fake_triton import FakeTriton, reached
from gateway.errors import RequestKilledServerError, StatusError, TritonUnavailableError, forget_frames
from gateway.triton_servers import GrpcTriton


class Slow(FakeTriton):
    """Answers when it may. `seen`: what became of the request."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.has_begun, self.may_answer, self.has_ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.seen = ""

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.has_begun.set()
        try:
            await self.may_answer.wait()
            self.seen = "answered"
        except asyncio.CancelledError:
            self.seen = "cancelled"
            raise
        finally:
            self.has_ended.set()
        return await super().ModelInfer(request, context)


class Failing(FakeTriton):
    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        await context.abort(grpc.StatusCode.INTERNAL)


def asked(triton: GrpcTriton, number: float = 0) -> asyncio.Task[Any]:
    return asyncio.create_task(triton.infer("sam", {"in": np.full((1, 1), number, np.float32)}, ("out",)))


async def cancelled(fake: Slow, triton: GrpcTriton) -> asyncio.Task[Any]:
    """A request under way whose caller has gone."""
    assert not await triton.absence()
    task = asked(triton)
    await fake.has_begun.wait()
    task.cancel()
    return task


@pytest.mark.parametrize("version", ["2.57.0", "2.60.0dev", "3.0"])
async def test_a_cancelled_request_is_cancelled_at_triton(version: str) -> None:
    fake = Slow(version)
    async with reached(fake) as triton:
        with pytest.raises(asyncio.CancelledError):
            await (await cancelled(fake, triton))
        await asyncio.wait_for(fake.has_ended.wait(), 60)
        assert fake.seen == "cancelled"


@pytest.mark.parametrize("version", ["2.51.0", "2.9.0", "unknown", ""])
async def test_a_triton_that_cancelling_can_kill_may_answer_first(version: str) -> None:
    fake = Slow(version)
    async with reached(fake) as triton:
        task = await cancelled(fake, triton)
        await asyncio.wait([task], timeout=0.2)
        assert not task.done()
        fake.may_answer.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert fake.seen == "answered"


@pytest.mark.parametrize("is_told_again", [False, True])
async def test_it_is_not_waited_for_without_end(is_told_again: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.triton_server.PATIENCE_S", 600 if is_told_again else 0.1)
    fake = Slow("2.51.0")
    async with reached(fake) as triton:
        task = await cancelled(fake, triton)
        await asyncio.sleep(0)
        if is_told_again:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(task), 60)
        await asyncio.wait_for(fake.has_ended.wait(), 60)
        assert fake.seen == "cancelled"


@pytest.mark.parametrize("version", ["2.51.0", "2.57.0"])
async def test_the_tensors_of_a_failed_request_are_let_go_at_once(
    version: str, without_cycle_search: None
) -> None:
    fake = Failing()
    fake.version = version
    async with reached(fake) as triton:
        assert not await triton.absence()

        async def ask() -> weakref.ref[Any]:
            image = np.zeros((1, 1), np.float32)
            try:
                await triton.infer("sam", {"in": image}, ("out",))
            except StatusError as error:
                forget_frames(error)  # as the interceptor does
            return weakref.ref(image)

        kept = await ask()
        await asyncio.sleep(0.01)  # until the request's task is forgotten
        assert kept() is None


# A server that ends without a word when it gets a zero, as one that the request crashes.
MORTAL = """
import asyncio, os, sys
import grpc.aio
from fake_triton import FakeTriton
from tritonclient.grpc import service_pb2_grpc

class Mortal(FakeTriton):
    async def ModelInfer(self, request, context):
        # Others are under way when it dies.
        await asyncio.sleep(0.05)
        if request.raw_input_contents == [bytes(4)]:
            os._exit(1)
        await asyncio.sleep(0.05)
        return await super().ModelInfer(request, context)

async def main():
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Mortal(), server)
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()

asyncio.run(main())
"""


@pytest.fixture
async def mortals() -> AsyncIterator[list[tuple[asyncio.subprocess.Process, int]]]:
    """Three such servers, with their ports."""
    servers = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", MORTAL, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parent
        )
        for _ in range(3)
    ]
    ports = []
    for server in servers:
        assert server.stdout is not None
        ports.append(int(await server.stdout.readline()))
    yield list(zip(servers, ports, strict=True))
    for server in servers:
        if server.returncode is None:
            server.kill()
        await server.wait()


# 2: callers repeat what is unavailable, so the last attempt must not say that.
@pytest.mark.parametrize("attempts", [2, 9])
async def test_a_request_that_kills_servers_is_sent_to_two_at_most(
    mortals: list[tuple[asyncio.subprocess.Process, int]], attempts: int
) -> None:
    triton = GrpcTriton(",".join(f"127.0.0.1:{port}" for _, port in mortals), attempts)
    with pytest.raises(RequestKilledServerError, match=r"went away twice .* model sam") as caught:
        await asked(triton)
    await triton.close()
    assert caught.value.code is grpc.StatusCode.INTERNAL
    (info,) = caught.value.details
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert info.reason == "REQUEST_KILLED_SERVER"
    killed = 0
    for server, _ in mortals:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(server.wait(), 0.5)
        killed += server.returncode is not None
    assert killed == 2


async def test_requests_beside_one_that_kills_servers_are_answered(
    mortals: list[tuple[asyncio.subprocess.Process, int]],
) -> None:
    """They lose the first server with it, and must not lose the second one too."""
    triton = GrpcTriton(",".join(f"127.0.0.1:{port}" for _, port in mortals))
    await asyncio.gather(*(asked(triton, 1) for _ in mortals))  # all are connected
    others = [asked(triton, 1) for _ in range(24)]
    with pytest.raises(RequestKilledServerError):
        await asked(triton)
    await asyncio.gather(*others)
    await triton.close()


async def test_a_server_that_is_not_there_costs_no_attempt_of_those(
    mortals: list[tuple[asyncio.subprocess.Process, int]],
) -> None:
    """One dies of the request, the others are away: unavailable, and not the request's doing."""
    for server, _ in mortals[1:]:
        server.kill()
        await server.wait()
    triton = GrpcTriton(",".join(f"127.0.0.1:{port}" for _, port in mortals), attempts=3)
    with pytest.raises(TritonUnavailableError):
        await asked(triton)
    await triton.close()

"""The gateway's client of Triton: what it does when its caller is gone, or the request fails."""

import asyncio
import contextlib
import logging
import sys
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from prometheus_client import REGISTRY

from fake_triton import FakeTriton, Offering, reached
from gateway.errors import RequestKilledServerError, StatusError, TritonUnavailableError, forget_frames
from gateway.triton_addresses import Endpoint
from gateway.triton_servers import GrpcTriton
from offered_models import sam


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


class Freezing(Offering):
    """Has a model, and answers nothing from its first request on until it is thawed."""

    def __init__(self, version: str = "2.57.0") -> None:
        super().__init__(sam())
        self.version = version
        self.is_frozen = asyncio.Event()
        self.requests = 0
        self.seen: list[str] = []

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.requests += 1
        self.is_silent = True
        self.is_frozen.set()
        try:
            while self.is_silent:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            self.seen.append("answered")
        except asyncio.CancelledError:
            self.seen.append("cancelled")
            raise
        return await super().ModelInfer(request, context)


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.triton_server.HEALTH_TIMEOUT_S", 0.3)
    monkeypatch.setattr("gateway.triton_server.PATIENCE_S", 0.1)
    monkeypatch.setattr("gateway.triton_server._SILENCE_CHECK_S", 0.02)


async def frozen(first: Freezing, triton: GrpcTriton) -> asyncio.Task[Any]:
    """A request under way at a server that has frozen, which has just been found out."""
    await known(triton)
    task = asyncio.create_task(infer(triton))
    await first.is_frozen.wait()
    await triton.absence()
    await triton._servers[next(iter(triton._servers))].look()
    return task


# Of an older version, too: it must not be asked to cancel at once, but it is left at once.
@pytest.mark.parametrize("version", ["2.51.0", "2.57.0"])
@pytest.mark.usefixtures("_impatient")
async def test_a_request_leaves_a_server_that_answers_nothing(version: str) -> None:
    first, other = Freezing(version), Offering(sam())
    async with reached(first, other) as triton:
        await asyncio.wait_for(await frozen(first, triton), 60)
        assert first.requests == 1
        async with asyncio.timeout(60):
            while not first.seen:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert first.seen == ["cancelled"]
        for _ in range(4):
            await infer(triton)
        assert first.requests == 1, "it gets no more"


@pytest.mark.usefixtures("_impatient")
async def test_a_request_that_silences_servers_is_sent_to_two_at_most() -> None:
    servers = [Freezing() for _ in range(3)]
    async with reached(*servers) as triton:
        task = await frozen(servers[0], triton)
        await servers[1].is_frozen.wait()
        await triton.absence()
        await asyncio.wait([task], timeout=1)
        assert not task.done(), "its second server may still answer"
        assert [server.requests for server in servers] == [1, 1, 0]
        servers[1].is_silent = False
        await asyncio.wait_for(task, 60)


@pytest.mark.usefixtures("_impatient")
async def test_a_request_waits_for_a_silent_server_where_there_is_no_other() -> None:
    (only, lacking) = Freezing(), Offering({})
    async with reached(only, lacking) as triton:
        task = await frozen(only, triton)
        await asyncio.wait([task], timeout=0.5)
        assert not task.done()
        only.is_silent = False
        await asyncio.wait_for(task, 60)
        assert only.seen == ["answered"]


@pytest.mark.usefixtures("_impatient")
async def test_few_requests_leave_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    first, other = Freezing(), Offering(sam())
    async with reached(first, other) as triton:
        monkeypatch.setattr(triton._budget, "_tokens", triton._budget._MAX / 2)
        task = await frozen(first, triton)
        await asyncio.wait([task], timeout=0.5)
        assert not task.done()
        first.is_silent = False
        await asyncio.wait_for(task, 60)


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
    mortals: list[tuple[asyncio.subprocess.Process, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They lose the first server with it, and must not lose the second one too."""
    # Where other programs keep the processors busy, a request may take longer than a turn.
    monkeypatch.setattr("gateway.triton_servers.SUSPECT_S", 60)
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


# Each by itself


class Counting(Offering):
    """Counts its requests. Without a model it refuses it in Triton's words."""

    def __init__(self, *models: str, **others: Any) -> None:
        super().__init__({name: config for name, config in sam(**others).items() if name in models})
        self.requests = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.requests += 1
        await self.may_answer.wait()
        if request.model_name not in self.models:
            message = f"Request for unknown model: {request.model_name!r} is not found"
            await context.abort(grpc.StatusCode.NOT_FOUND, message)
        return await super().ModelInfer(request, context)


MODELS = "sam_encoder", "sam_decoder"


async def infer(triton: GrpcTriton, model: str = "sam_encoder") -> None:
    await triton.infer(model, {"in": np.zeros((1, 1), np.float32)}, ("out",))


async def known(triton: GrpcTriton) -> None:
    await triton.models()
    for model in MODELS:
        await triton.config(model)


async def test_requests_go_where_the_model_is() -> None:
    whole, half = Counting(*MODELS), Counting("sam_decoder")
    async with reached(whole, half) as triton:
        await known(triton)
        for _ in range(10):
            await infer(triton, "sam_encoder")
        assert (whole.requests, half.requests) == (10, 0)
        for _ in range(10):
            await infer(triton, "sam_decoder")
        assert (whole.requests, half.requests) == (15, 5)


async def test_a_model_unloaded_between_two_looks_is_tried_at_another() -> None:
    whole, half = Counting(*MODELS), Counting(*MODELS)
    async with reached(whole, half) as triton:
        await known(triton)
        del half.models["sam_encoder"]
        for _ in range(10):
            await infer(triton)
        assert half.requests <= 1
        half.models |= sam()
        await known(triton)
        half.requests = whole.requests = 0
        for _ in range(10):
            await infer(triton)
        assert (whole.requests, half.requests) == (5, 5)


async def test_a_model_that_none_has_is_unavailable() -> None:
    async with reached(Counting("sam_decoder"), Counting("sam_decoder")) as triton:
        await triton.models()
        with pytest.raises(TritonUnavailableError, match="model sam_encoder cannot be reached") as caught:
            await infer(triton)
        assert caught.value.about == {"model": "sam_encoder"}


async def test_a_server_of_another_export_gets_nothing() -> None:
    servers = [Counting(*MODELS, export=export) for export in ("a", "b", "a")]
    async with reached(*servers) as triton:
        await known(triton)
        for _ in range(10):
            await infer(triton)
        assert [server.requests for server in servers] == [5, 0, 5]


async def test_the_least_busy_server_is_asked() -> None:
    slow, quick = Counting(*MODELS), Counting(*MODELS)
    async with reached(slow, quick) as triton:
        await known(triton)
        slow.may_answer.clear()
        held = [asyncio.create_task(infer(triton)) for _ in range(2)]
        # One of them is with the slow server, and the other has its answer: until then both are equally busy.
        while slow.requests < 1 or not any(task.done() for task in held):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for _ in range(10):
            await infer(triton)
        assert slow.requests == 1
        slow.may_answer.set()
        await asyncio.gather(*held)


async def test_log_and_metrics_say_what_becomes_of_each(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gateway.triton_news")
    well, ill = Counting(*MODELS), Counting("sam_decoder")
    async with reached(well, ill) as triton:
        await known(triton)
        good, bad = triton._servers

        def value(name: str, **labels: str) -> float | None:
            return REGISTRY.get_sample_value(f"visiongate_triton_{name}", labels)

        assert [value("model_ready", server=name, model="sam_encoder") for name in (good, bad)] == [1, 0]
        assert [value("up", server=name) for name in (good, bad)] == [1, 1]
        ill.models |= sam()
        await known(triton)
        assert value("model_ready", server=bad, model="sam_encoder") == 1
        await infer(triton)
        assert value("requests_total", server=good, model="sam_encoder", code="OK") == 1
        triton._servers[bad].lose("it burns")
        triton._tell_servers()
        assert value("up", server=bad) == 0
        await known(triton)
        assert value("up", server=bad) == 1
        assert [record.message.split(" ", 2)[::2] for record in caplog.records] == [
            ["Triton", "answers: version 2.51.0"],
            ["Triton", "answers: version 2.51.0"],
            ["Triton", "lacks model sam_encoder: calls go to others"],
            ["Triton", "has model sam_encoder again"],
            ["Triton", "is lost: it burns"],
            ["Triton", "answers again: version 2.51.0"],
        ]
        assert {record.message.split()[1] for record in caplog.records[2:]} == {bad}
    assert value("up", server=bad) is None
    assert value("requests_total", server=good, model="sam_encoder", code="OK") is None


async def test_servers_come_and_go_with_their_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A headless Service of Kubernetes: its name stands for the pods that are there now."""
    first, second = Counting(*MODELS), Counting(*MODELS)
    async with reached(first) as one, reached(second) as two:
        await known(one)
        await known(two)
        there = [Endpoint(name, f"ipv4:{name}", "triton") for name in (*one._servers, *two._servers)]
        monkeypatch.setattr("gateway.triton_servers.RESOLVE_EVERY_S", 0)

        async def resolve(addresses: str) -> list[Endpoint]:
            assert addresses == "triton:8001"
            return there

        monkeypatch.setattr("gateway.triton_servers.resolve", resolve)
        triton = GrpcTriton("triton:8001")
        await known(triton)
        for _ in range(4):
            await infer(triton)
        assert (first.requests, second.requests) == (2, 2)
        # A request that the first has may end although its name has gone.
        first.may_answer.clear()
        held = asyncio.create_task(infer(triton))
        while first.requests < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        del there[0]
        await known(triton)
        for _ in range(4):
            await infer(triton)
        assert (first.requests, second.requests) == (3, 6)
        first.may_answer.set()
        await held
        await triton.close()


async def test_of_both_kinds_of_addresses_those_that_answer_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """`localhost` is ::1 and 127.0.0.1, and Triton listens on one of them."""
    async with reached(Counting(*MODELS)) as there:
        await known(there)
        (name,) = there._servers
        port = name.rpartition(":")[2]
        both = [
            Endpoint(f"[::1]:{port}", f"ipv6:[::1]:{port}", "localhost", is_ipv6=True),
            Endpoint(name, f"ipv4:{name}", "localhost"),
        ]

        async def resolve(addresses: str) -> list[Endpoint]:
            return both

        monkeypatch.setattr("gateway.triton_servers.resolve", resolve)
        monkeypatch.setattr("gateway.triton_servers.RESOLVE_EVERY_S", 0)
        triton = GrpcTriton(f"localhost:{port}")
        assert await triton.absence() == ""
        assert REGISTRY.get_sample_value("visiongate_triton_up", {"server": f"[::1]:{port}"}) is None
        await known(triton)
        assert list(triton._servers) == [name]
        await triton.close()


async def test_a_name_that_is_not_known_yet() -> None:
    triton = GrpcTriton("nobody.invalid:8001")
    assert "nobody.invalid:8001: " in await triton.absence()
    with pytest.raises(TritonUnavailableError):
        await triton.models()
    with pytest.raises(TritonUnavailableError):
        await infer(triton)
    await triton.close()

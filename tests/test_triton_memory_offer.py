"""Shared memory with a Triton that takes it, refuses it, forgets it, or has somebody's who is gone."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from fake_triton import Offering, reached
from gateway.errors import StatusError
from gateway.triton_servers import GrpcTriton
from gateway.triton_shared_memory import SharedTensors
from offered_models import sam

VIEW = {"image_embedding": np.full((1, 4), 0.5, np.float32)}


class Sharing(Offering):
    """A Triton that reads shared memory, while `refusal` is empty. `regions`: what it was told of."""

    def __init__(self) -> None:
        super().__init__(sam())
        self.regions: dict[str, Any] = {}
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        self.requests: list[Any] = []

    async def SystemSharedMemoryRegister(self, request: Any, context: Any) -> Any:  # noqa: N802
        if self.refusal:
            await context.abort(*self.refusal)
        if request.name in self.regions:
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, f"'{request.name}' already in manager")
        self.regions[request.name] = request
        return service_pb2.SystemSharedMemoryRegisterResponse()

    async def SystemSharedMemoryStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        answer = service_pb2.SystemSharedMemoryStatusResponse()
        for name in self.regions:
            answer.regions[name].name = name
        return answer

    async def SystemSharedMemoryUnregister(self, request: Any, context: Any) -> Any:  # noqa: N802
        del self.regions[request.name]
        return service_pb2.SystemSharedMemoryUnregisterResponse()

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.requests.append(request)
        for tensor in request.inputs:
            if not tensor.parameters:
                continue
            region = tensor.parameters["shared_memory_region"].string_param
            if region not in self.regions:
                await context.abort(
                    grpc.StatusCode.INVALID_ARGUMENT, f"Unable to find shared memory region: '{region}'"
                )
        return await super().ModelInfer(request, context)


@asynccontextmanager
async def sharing(
    *fakes: Sharing, must_share: bool = False
) -> AsyncIterator[tuple[GrpcTriton, SharedTensors]]:
    """The gateway's client of them, with shared memory."""
    shared = SharedTensors(1 << 20)
    async with reached(*fakes) as plain:
        triton = GrpcTriton(plain._addresses, 4, shared, must_share=must_share)
        try:
            await triton.absence()
            yield triton, shared
        finally:
            await triton.close()
            shared.close()


async def ask(triton: GrpcTriton, tensors: Any) -> Any:
    return await triton.infer("sam_decoder", tensors, ("out",))


def is_sent(request: Any) -> bool:
    assert bool(request.raw_input_contents) != bool(request.inputs[0].parameters)
    return bool(request.raw_input_contents)


async def test_what_is_kept_there_is_not_sent() -> None:
    fake = Sharing()
    async with sharing(fake) as (triton, shared):
        assert fake.regions[shared.name].key == f"/{shared.name}"
        assert fake.regions[shared.name].byte_size == shared.size
        kept = shared.put(VIEW)
        await ask(triton, kept)
        await ask(triton, VIEW)
        assert [is_sent(request) for request in fake.requests] == [False, True]
    assert not fake.regions


async def test_of_several_each_gets_what_it_can_read() -> None:
    fakes = Sharing(), Sharing()
    fakes[1].refusal = grpc.StatusCode.INTERNAL, "Unable to open shared memory region: '/x'"
    async with sharing(*fakes) as (triton, shared):
        kept = shared.put(VIEW)
        for _ in range(4):
            await ask(triton, kept)
        assert [[is_sent(request) for request in fake.requests] for fake in fakes] == [
            [False, False],
            [True, True],
        ]


async def test_a_triton_that_started_anew_is_asked_anew() -> None:
    fake = Sharing()
    async with sharing(fake) as (triton, shared):
        kept = shared.put(VIEW)
        fake.regions.clear()
        await ask(triton, kept)
        assert [is_sent(request) for request in fake.requests] == [False, True]
        assert not await triton.absence()
        await ask(triton, kept)
        assert is_sent(fake.requests[-1]) is False


async def test_one_that_was_only_out_of_reach_knows_it_still() -> None:
    fake = Sharing()
    async with sharing(fake) as (triton, shared):
        (server,) = triton._servers.values()
        server.lose("the network is broken")
        assert not shared.readers
        assert not await triton.absence()
        assert shared.readers == {server.name}
        await ask(triton, shared.put(VIEW))
        assert is_sent(fake.requests[-1]) is False


async def test_a_refusal_is_told_once_and_everything_is_sent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    fake = Sharing()
    fake.refusal = grpc.StatusCode.UNAVAILABLE, "shared memory is disabled"
    async with sharing(fake) as (triton, shared):
        for _ in range(3):
            assert not await triton.absence()
        assert shared.put(VIEW)["image_embedding"] is VIEW["image_embedding"]
        await ask(triton, VIEW)
        assert is_sent(fake.requests[-1])
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "(shared memory is disabled)" in line
    assert "--allow-client-shm=true" in line


async def test_a_triton_that_must_share_is_not_used_until_it_does() -> None:
    fake = Sharing()
    fake.refusal = grpc.StatusCode.UNAVAILABLE, "shared memory is disabled"
    async with sharing(fake, must_share=True) as (triton, shared):
        absence = await triton.absence()
        assert "shared memory is disabled" in absence
        assert "--allow-client-shm=true" in absence
        with pytest.raises(StatusError):
            await triton.models()
        fake.refusal = None
        assert not await triton.absence()
        await ask(triton, shared.put(VIEW))
        assert is_sent(fake.requests[-1]) is False


async def test_the_memory_of_those_that_are_gone_is_given_back() -> None:
    fake = Sharing()
    other = SharedTensors(4096)
    gone = f"visiongate_tensors_1_{'0' * 16}"
    fake.regions = dict.fromkeys((other.name, gone, "somebody_elses"))
    try:
        async with sharing(fake) as (_, shared):
            assert set(fake.regions) == {other.name, "somebody_elses", shared.name}
    finally:
        other.close()


async def test_a_triton_elsewhere_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.triton_addresses._is_here", lambda _: False)
    fake = Sharing()
    async with sharing(fake) as (_, shared):
        assert not shared.readers
        assert not fake.regions
    async with sharing(fake, must_share=True) as (_, shared):
        assert shared.readers


async def test_cancelled_requests_take_nothing_from_others() -> None:
    fake = Sharing()
    async with sharing(fake) as (triton, shared):
        kept = shared.put(VIEW)
        tasks = [asyncio.create_task(ask(triton, kept)) for _ in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(answer, dict) for answer in answers[1::2]] == [True] * 10

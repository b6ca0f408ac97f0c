"""gRPC's health protocol as its clients see it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.health import Health

SERVICE = "visiongate.v1.GazeService"
Status = health_pb2.HealthCheckResponse


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
async def server(health: Health) -> AsyncIterator[grpc.aio.Server]:
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    yield server
    await server.stop(None)


@pytest.fixture
async def stub(server: grpc.aio.Server) -> AsyncIterator[Any]:
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield health_pb2_grpc.HealthStub(channel)


async def status(watch: Any) -> int:
    """What a watcher hears next."""
    answer = await asyncio.wait_for(watch.read(), 60)
    return int(answer.status)


def asked(service: str = SERVICE) -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=service)


async def test_each_service_has_a_status_of_its_own(health: Health, stub: Any) -> None:
    health.set("", ready=True)
    health.set(SERVICE, ready=False)
    assert (await stub.Check(asked(""))).status == Status.SERVING
    assert (await stub.Check(asked())).status == Status.NOT_SERVING
    health.set(SERVICE, ready=True)
    assert (await stub.Check(asked())).status == Status.SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Check(asked("other"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_watchers_hear_of_changes_also_when_one_of_them_leaves(health: Health, stub: Any) -> None:
    health.set(SERVICE, ready=True)
    first, second = stub.Watch(asked()), stub.Watch(asked())
    assert [await status(first), await status(second)] == [Status.SERVING] * 2
    first.cancel()
    # A call of the same connection: by then the server knows that the first has left.
    await stub.Check(asked())
    health.set(SERVICE, ready=True)
    health.set(SERVICE, ready=False)
    assert await status(second) == Status.NOT_SERVING
    third = stub.Watch(asked())
    assert await status(third) == Status.NOT_SERVING
    health.set(SERVICE, ready=True)
    assert [await status(second), await status(third)] == [Status.SERVING] * 2


async def test_an_unknown_service_can_be_waited_for(health: Health, stub: Any) -> None:
    watch = stub.Watch(asked())
    assert await status(watch) == Status.SERVICE_UNKNOWN
    health.set(SERVICE, ready=True)
    assert await status(watch) == Status.SERVING


async def test_watchers_are_bounded_and_make_room_when_they_leave(
    health: Health, stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.health.MAX_WATCHERS", 2)
    health.set(SERVICE, ready=True)
    first, second = stub.Watch(asked()), stub.Watch(asked())
    assert [await status(first), await status(second)] == [Status.SERVING] * 2
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await status(stub.Watch(asked()))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    first.cancel()
    await stub.Check(asked())
    assert await status(stub.Watch(asked())) == Status.SERVING


async def test_watchers_do_not_hold_up_the_end(health: Health, server: grpc.aio.Server, stub: Any) -> None:
    health.set(SERVICE, ready=True)
    watch = stub.Watch(asked())
    assert await status(watch) == Status.SERVING
    health.stop()
    assert await status(watch) == Status.NOT_SERVING
    health.set(SERVICE, ready=True)
    assert (await stub.Check(asked())).status == Status.NOT_SERVING
    health.end_watches()
    # Were it to wait for the watcher, it would do so for longer than the test may take.
    await asyncio.wait_for(server.stop(grace=250), 60)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await watch.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

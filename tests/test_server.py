"""What the server adds to gRPC's health service."""

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.server import Health


async def test_watchers_do_not_hold_up_the_end() -> None:
    health = Health()
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await health.set("", health_pb2.HealthCheckResponse.SERVING)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answers = stub.Watch(health_pb2.HealthCheckRequest(service=""))
        assert (await answers.read()).status == health_pb2.HealthCheckResponse.SERVING
        await health.enter_graceful_shutdown()
        assert (await answers.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        health.send_watchers_away()
        # Were it to wait for the watcher, it would do so for longer than the test may take.
        await asyncio.wait_for(server.stop(grace=250), 60)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await answers.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

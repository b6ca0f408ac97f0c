"""Whoever opens connections, others can still connect: callers, and probes of health."""

import asyncio
import resource
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.embedded import EmbeddedTriton
from soak.peers import METHOD
from soak.service import Service, serving
from soak.slow_sender import send_slowly
from visiongate import AsyncClient

DESCRIPTORS = 96


@contextmanager
def idle_connections(address: str, count: int) -> Iterator[list[socket.socket]]:
    host, port = address.rsplit(":", 1)
    made = [socket.create_connection((host, int(port)), timeout=60) for _ in range(count)]
    try:
        yield made
    finally:
        for connection in made:
            connection.close()


def is_open(connection: socket.socket) -> bool:
    connection.settimeout(0.2)
    try:
        while connection.recv(1000):  # what gRPC says at the beginning
            pass
    except TimeoutError:
        return True
    except ConnectionError:
        pass
    return False


def metrics_of(service: Service) -> dict[str, float]:
    """Read the metrics, by a connection that may itself be one too many, if the machine is slow."""
    for _ in range(20):
        try:
            return service.metrics()
        except ConnectionError:
            time.sleep(0.1)
    return service.metrics()


def closed(service: Service, reason: str) -> float:
    return metrics_of(service).get(f'visiongate_connections_closed_total{{reason="{reason}"}}', 0)


async def check_health(address: str) -> Any:
    async with grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        return (await stub.Check(health_pb2.HealthCheckRequest(), timeout=60)).status


def status_of(service: Service, path: str) -> int:
    url = service.metrics_url.replace("/metrics", path)
    with urllib.request.urlopen(url, timeout=60) as answer:
        return int(answer.status)


async def test_idle_connections_use_up_no_descriptors(demo_triton: EmbeddedTriton) -> None:
    with serving(demo_triton.grpc_address) as service:
        limit = DESCRIPTORS, DESCRIPTORS
        resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, limit)
        at_work = asyncio.create_task(send_slowly(service.address, METHOD))
        await asyncio.sleep(1)
        with idle_connections(service.address, 150):
            for number in range(3):
                assert await check_health(service.address) == health_pb2.HealthCheckResponse.SERVING
                assert await asyncio.to_thread(status_of, service, "/readyz") == 200
                async with AsyncClient(service.address, timeout=60) as client:
                    await client.embed_texts([f"text {number}"])
                await asyncio.sleep(0.5)
            assert closed(service, "descriptors") >= 50
            assert service.open_files < DESCRIPTORS
            assert metrics_of(service)["visiongate_connections"] < DESCRIPTORS
        assert not at_work.done(), "a connection with a call was closed"
        at_work.cancel()


async def test_one_address_has_no_more_connections_than_it_may(demo_triton: EmbeddedTriton) -> None:
    with (
        serving(demo_triton.grpc_address, "--max-connections-per-peer", "10") as service,
        idle_connections(service.address, 30) as connections,
    ):
        count = 0.0
        while count < 20:
            await asyncio.sleep(0.1)
            count = closed(service, "peer")
        # Which ones depends on how many were there when the server looked. A question for its metrics may
        # have been one of the ten that it kept.
        assert sum(map(is_open, connections)) in (9, 10)
        assert await check_health(service.address) == health_pb2.HealthCheckResponse.SERVING

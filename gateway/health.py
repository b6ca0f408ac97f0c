"""gRPC's health protocol, grpc.health.v1: which services can answer.

It replaces the servicer of the package grpcio-health-checking, in which a watcher that leaves keeps news from
all others.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

Request = health_pb2.HealthCheckRequest
Response = health_pb2.HealthCheckResponse
Context = grpc.aio.ServicerContext[Any, Any]

# Anybody may watch, without a key. The limit is far above what clients need.
MAX_WATCHERS = 10_000

HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


def full_name(name: str, services: Iterable[str]) -> str | None:
    """Return the full name of a service, given that or what is after its last dot; None if there is none."""
    return next((service for service in services if name in (service, service.rpartition(".")[2])), None)


class Health(health_pb2_grpc.HealthServicer):
    """The health servicer. It belongs to one event loop. A service that was never set is unknown."""

    def __init__(self) -> None:
        self._ready: dict[str, bool] = {}
        self._is_stopping = False
        self._has_ended = False
        # Set at the next change, and then replaced by a new event.
        self._changed = asyncio.Event()
        self._watchers = 0

    def set(self, service: str, ready: bool) -> None:
        """Say if a service can answer. Does nothing after `stop`."""
        if not self._is_stopping and self._ready.get(service) is not ready:
            self._ready[service] = ready
            self._notify()

    def stop(self) -> None:
        """Say that no service can answer from now on."""
        self._is_stopping = True
        self._ready = dict.fromkeys(self._ready, False)
        self._notify()

    def end_watches(self) -> None:
        """End all watches, which would otherwise delay the end of the server."""
        self._has_ended = True
        self._notify()

    async def Check(self, request: Request, context: Context) -> Response:  # noqa: N802
        if request.service not in self._ready:
            await context.abort(grpc.StatusCode.NOT_FOUND, "the server has no such service")
        return self._status(request.service)

    async def Watch(self, request: Request, context: Context) -> None:  # noqa: N802
        if self._watchers >= MAX_WATCHERS:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, f"at most {MAX_WATCHERS} callers may watch at a time"
            )
        self._watchers += 1
        try:
            sent = None
            while not self._has_ended:
                changed = self._changed
                status = self._status(request.service)
                if status != sent:
                    await context.write(status)
                    sent = status
                await changed.wait()
        finally:
            self._watchers -= 1
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the server stops")

    def _status(self, service: str) -> Response:
        if service not in self._ready:
            return Response(status=Response.SERVICE_UNKNOWN)
        return Response(status=Response.SERVING if self._ready[service] else Response.NOT_SERVING)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

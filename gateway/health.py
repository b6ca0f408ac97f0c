"""gRPC's health protocol, grpc.health.v1: which services can answer, for those who ask and those who watch.

In place of the package's own servicer, where a watcher that leaves takes the news away from all others.
"""

import asyncio
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

Request = health_pb2.HealthCheckRequest
Response = health_pb2.HealthCheckResponse
Context = grpc.aio.ServicerContext[Any, Any]

# Anybody may watch, without a key: a bound, far above what clients need, to what that can take.
MAX_WATCHERS = 10_000

HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


class Health(health_pb2_grpc.HealthServicer):
    """Used from one event loop. A service that was never set is unknown."""

    def __init__(self) -> None:
        self._ready: dict[str, bool] = {}
        self._is_stopping = False
        self._is_over = False
        # Set at the next change, and another one then takes its place.
        self._changed = asyncio.Event()
        self._watchers = 0

    def set(self, service: str, ready: bool) -> None:
        """Whether a service can answer; nothing any more after `stop`."""
        if not self._is_stopping and self._ready.get(service) is not ready:
            self._ready[service] = ready
            self._tell()

    def stop(self) -> None:
        """From now on no service can answer."""
        self._is_stopping = True
        self._ready = dict.fromkeys(self._ready, False)
        self._tell()

    def send_watchers_away(self) -> None:
        """End all watches: they would hold up the end of the server."""
        self._is_over = True
        self._tell()

    async def Check(self, request: Request, context: Context) -> Response:  # noqa: N802
        if request.service not in self._ready:
            await context.abort(grpc.StatusCode.NOT_FOUND, "the server has no such service")
        return self._status(request.service)

    async def Watch(self, request: Request, context: Context) -> None:  # noqa: N802
        if self._watchers >= MAX_WATCHERS:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_WATCHERS} callers watch, and no more may"
            )
        self._watchers += 1
        try:
            told = None
            while not self._is_over:
                changed = self._changed
                status = self._status(request.service)
                if status != told:
                    await context.write(status)
                    told = status
                await changed.wait()
        finally:
            self._watchers -= 1
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the server stops")

    def _status(self, service: str) -> Response:
        if service not in self._ready:
            return Response(status=Response.SERVICE_UNKNOWN)
        return Response(status=Response.SERVING if self._ready[service] else Response.NOT_SERVING)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

"""The composition root: services, interceptor, health, reflection, and how they start and stop."""

import asyncio
import logging
import signal
from collections.abc import Callable
from types import TracebackType
from typing import Self

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from gateway import metrics
from gateway.admission import Gate
from gateway.catalog import Catalog, CatalogError, Family
from gateway.interceptor import HEALTH, CallInterceptor
from gateway.pipelines.core import Core
from gateway.services import detection, embedding, gaze, models, segmentation, text
from gateway.settings import Settings
from gateway.triton import GrpcTriton

logger = logging.getLogger(__name__)

SERVICES = (
    detection.SERVICE,
    segmentation.SERVICE,
    embedding.SERVICE,
    gaze.SERVICE,
    text.SERVICE,
    models.SERVICE,
)
FAMILIES = tuple(
    dict.fromkeys(family for service in SERVICES for family in (*service.families, *service.optional))
)
# The health of the server as a whole, by the health protocol's convention.
WHOLE_SERVER = ""


class Gateway:
    """A running gateway: an async context manager that listens once entered.

    Raises CatalogError where Triton does not answer in time or lacks what the gateway needs.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.port = settings.port

    async def __aenter__(self) -> Self:
        settings = self._settings
        self._triton = GrpcTriton(settings.triton, settings.triton_attempts)
        try:
            await self._wait_for_triton()
            catalog = await Catalog.load(self._triton, settings.repository, FAMILIES)
        except BaseException:
            await self._triton.close()
            raise
        self._core = Core(self._triton, catalog, settings)
        self._server = grpc.aio.server(
            interceptors=[
                CallInterceptor(
                    Gate(settings.max_concurrent_calls, settings.max_bytes_in_flight),
                    settings.max_call_s,
                    None,
                )
            ],
            options=[
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", -1),
                # Two servers on one port would each get a part of the calls: by mistake, that is an error.
                ("grpc.so_reuseport", int(settings.workers > 1)),
            ],
        )
        for service in SERVICES:
            service.add(self._core, self._server)
        self._health = health_aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            [service.name for service in SERVICES] + [HEALTH, reflection.SERVICE_NAME], self._server
        )
        try:
            self.port = self._server.add_insecure_port(f"{settings.host}:{settings.port}")
        except RuntimeError as error:
            await self._triton.close()
            raise CatalogError(f"cannot listen on {settings.host}:{settings.port}: {error}") from error
        await self._set_health()
        await self._server.start()
        self._health_task = asyncio.create_task(self._watch_health())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._health_task.cancel()
        await self._health.enter_graceful_shutdown()
        await self._server.stop(self._settings.grace_s)
        self._core.close()
        await self._triton.close()

    @property
    def catalog(self) -> Catalog:
        return self._core.catalog

    async def _wait_for_triton(self) -> None:
        deadline = asyncio.get_running_loop().time() + self._settings.triton_wait_s
        told = False
        while not await self._triton.is_live():
            if asyncio.get_running_loop().time() >= deadline:
                raise CatalogError(
                    f"no Triton answers at {self._settings.triton}: start it, or give its address by --triton"
                )
            if not told:
                logger.info("waiting for Triton at %s", self._settings.triton)
                told = True
            await asyncio.sleep(0.25)

    async def _watch_health(self) -> None:
        while True:
            await asyncio.sleep(self._settings.health_interval_s)
            await self._set_health()

    async def _set_health(self) -> None:
        """Each service serves while Triton is ready to run the default models that it needs."""
        healthy = []
        for service in SERVICES:
            needed = [*service.families, *filter(self.catalog.has, service.optional)]
            ready = all([await self._is_family_ready(family) for family in needed])
            # A service whose models the repository does not have is no fault of the server's.
            if all(self.catalog.has(family) for family in service.families):
                healthy.append(ready)
            await self._set_service_health(service.name, ready)
        await self._set_service_health(WHOLE_SERVER, all(healthy))

    async def _set_service_health(self, service: str, ready: bool) -> None:
        statuses = health_pb2.HealthCheckResponse
        await self._health.set(service, statuses.SERVING if ready else statuses.NOT_SERVING)
        metrics.READY.labels(service).set(ready)

    async def _is_family_ready(self, family: Family) -> bool:
        names = {
            name
            for variant in self.catalog.of(family)
            if variant.is_default
            for name in variant.triton_models.values()
        }
        return bool(names) and all([await self._triton.is_model_ready(name) for name in names])


async def stop_signal() -> None:
    """Waits for SIGINT or SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


async def serve(settings: Settings, started: Callable[[Gateway], None]) -> None:
    """Runs a gateway until SIGINT or SIGTERM; calls in flight may then finish."""
    stop = asyncio.create_task(stop_signal())
    async with Gateway(settings) as gateway:
        started(gateway)
        await stop
        logger.info("stopping: calls in flight have %g seconds", settings.grace_s)

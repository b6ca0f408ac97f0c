"""The composition root: services, interceptor, health, reflection, and how they start and stop."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Self

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from gateway import library_output, metrics, tracing
from gateway.admission import Gate
from gateway.api_keys import ApiKeys, read_keys
from gateway.catalog import Catalog, Family, NotReadyError
from gateway.errors import StatusError
from gateway.health import HEALTH, Health
from gateway.heap import keep_trimmed, limit_arenas
from gateway.interceptor import CallInterceptor
from gateway.pipelines.core import Core, gather
from gateway.ports import ListenError, check_free
from gateway.services import detection, embedding, gaze, models, segmentation, text
from gateway.settings import Settings
from gateway.status_server import StatusServer
from gateway.stopping import StopSignals, until_first
from gateway.tls import server_credentials
from gateway.triton import GrpcTriton
from visiongate.address import join

logger = logging.getLogger(__name__)

# gRPC takes the largest of its integers for no limit.
_NEVER_MS = 2**31 - 1

KEEPALIVE = (
    # Clients that have vanished are found out, and their calls ended.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Many clients ask every half minute whether the server is there. By default gRPC hangs up on them.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
)

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


def check(settings: Settings) -> None:
    """Raise what would keep a gateway from listening, before Triton is started or waited for.

    ListenError where a port is not free, ValueError where the files of API keys or certificates are not what
    they should be.
    """
    check_free(settings.host, settings.port, "--port")
    if settings.metrics_port is not None:
        check_free(settings.metrics_host, settings.metrics_port, "--metrics-port")
    server_credentials(settings)
    if settings.api_keys is not None:
        read_keys(settings.api_keys)


class Gateway:
    """A running gateway: an async context manager that listens once entered.

    Raises CatalogError where Triton does not answer in time or lacks what the gateway needs, and what `check`
    raises.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ready_models: frozenset[str] = frozenset()
        self.port = settings.port

    async def __aenter__(self) -> Self:
        settings = self._settings
        # Before Triton is waited for: what is wrong with these is said at once.
        credentials = server_credentials(settings)
        authenticator = None if settings.api_keys is None else ApiKeys(settings.api_keys)
        if settings.processes == 1:
            check_free(settings.host, settings.port, "--port")
        _set_unready()
        async with contextlib.AsyncExitStack() as made:
            self._triton = GrpcTriton(settings.triton, settings.triton_attempts)
            made.push_async_callback(self._triton.close)
            catalog = await self._load_catalog()
            self._core = Core(self._triton, catalog, settings)
            made.callback(self._core.close)
            self._server = self._make_server(authenticator)
            made.push_async_callback(self._server.stop, None)
            # Before the port is bound: from then on the kernel puts connections into its queue.
            await self._set_health()
            self.port = self._listen(credentials)
            await self._server.start()
            made.pop_all()
        self._tasks = [asyncio.create_task(work) for work in (self._watch_health(), keep_trimmed())]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        _set_unready()
        self._health.stop()
        try:
            await asyncio.sleep(self._settings.drain_s)
            self._health.end_watches()
            await self._server.stop(self._settings.grace_s)
        except asyncio.CancelledError:
            await self._server.stop(None)  # cuts the calls off for which the other waits
            raise
        finally:
            self._core.close()
            await self._triton.close()

    def _make_server(self, authenticator: ApiKeys | None) -> grpc.aio.Server:
        settings = self._settings
        gate = Gate(settings.max_concurrent_calls, settings.max_bytes_in_flight)
        server = grpc.aio.server(
            interceptors=[CallInterceptor(gate, settings.max_call_s, settings.max_receive_s, authenticator)],
            options=[
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_connection_age_ms", int(min(settings.max_connection_age_s * 1000, _NEVER_MS))),
                *KEEPALIVE,
                # Two servers on one port would each get a part of the calls: by mistake, that is an error.
                ("grpc.so_reuseport", int(settings.processes > 1)),
            ],
        )
        for service in SERVICES:
            service.add(self._core, server)
        self._health = Health()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection(
            [service.name for service in SERVICES] + [HEALTH, reflection.SERVICE_NAME], server
        )
        return server

    def _listen(self, credentials: grpc.ServerCredentials | None) -> int:
        host, port = self._settings.host, self._settings.port
        try:
            if credentials is None:
                return self._server.add_insecure_port(join(host, port))
            return self._server.add_secure_port(join(host, port), credentials)
        except RuntimeError as error:
            raise ListenError(host, port, "--port", error) from error

    @property
    def catalog(self) -> Catalog:
        return self._core.catalog

    @property
    def served(self) -> str:
        """The models, as an operator reads them."""
        return ", ".join(f"{variant.family.name} {variant.name}" for variant in self.catalog.variants)

    async def _load_catalog(self) -> Catalog:
        """As soon as Triton is there and has loaded its models."""
        address, loop = self._settings.triton, asyncio.get_running_loop()
        deadline = loop.time() + self._settings.triton_wait_s
        told = ""
        while True:
            detail = await self._triton.absence()
            try:
                if detail:
                    raise NotReadyError(
                        f"no Triton answers at {address}: is it running there? --triton names another"
                    )
                return await Catalog.load(self._triton, self._settings.repository, FAMILIES)
            except NotReadyError as error:
                reason = str(error)
            except StatusError as error:
                # It went away again between two questions.
                reason = f"Triton at {address}: {error.message}"
            if loop.time() >= deadline:
                raise NotReadyError(reason + (f" ({detail})" if detail else ""))
            if told != reason:
                # As a warning: it is seen where nobody has set up a log, too.
                logger.warning("waiting: %s%s", reason, f" ({detail})" if detail else "")
                told = reason
            await asyncio.sleep(0.25)

    async def _watch_health(self) -> None:
        while True:
            await asyncio.sleep(self._settings.health_interval_s)
            try:
                await self._set_health()
            except Exception:
                # Nobody would notice that health is not looked at any more.
                logger.exception("Triton's health cannot be told")
            metrics.TASKS.set(len(asyncio.all_tasks()))

    async def _set_health(self) -> None:
        """Each service serves while Triton is ready to run the default models that it needs."""
        models = {family: self._default_models(family) for family in FAMILIES}
        names = sorted(set().union(*models.values()))
        answers = await gather(self._triton.is_model_ready(name) for name in names)
        # Of several Tritons one may hang. While another answers, what it was asked about is as it was.
        silent = self._ready_models if any(answer is not None for answer in answers) else frozenset()
        self._ready_models = ready = frozenset(
            name
            for name, answer in zip(names, answers, strict=True)
            if answer or (answer is None and name in silent)
        )
        healthy = []
        for service in SERVICES:
            needed = [*service.families, *filter(self.catalog.has, service.optional)]
            serves = all(models[family] and models[family] <= ready for family in needed)
            # A service whose models the repository does not have is no fault of the server's.
            if all(self.catalog.has(family) for family in service.families):
                healthy.append(serves)
            self._set_service_health(service.name, serves)
        self._set_service_health(metrics.WHOLE_SERVER, all(healthy))

    def _set_service_health(self, service: str, ready: bool) -> None:
        self._health.set(service, ready)
        metrics.READY.labels(service).set(ready)

    def _default_models(self, family: Family) -> set[str]:
        """Triton's names of what the default variant consists of."""
        return {
            name
            for variant in self.catalog.of(family)
            if variant.is_default
            for name in variant.triton_models.values()
        }


def _set_unready() -> None:
    for service in (metrics.WHOLE_SERVER, *(service.name for service in SERVICES)):
        metrics.READY.labels(service).set(0)


async def serve(settings: Settings, started: Callable[[Gateway], None], stop: StopSignals) -> None:
    """Runs a gateway until told to stop; calls in flight may then finish, until told so again."""
    limit_arenas()
    with library_output.logged(), StatusServer(settings), tracing.exporting(settings):
        async with contextlib.AsyncExitStack() as stack:
            gateway = Gateway(settings)
            await until_first(stack.enter_async_context(gateway), stop.first.wait())
            if not stop.first.is_set():
                started(gateway)
                await stop.first.wait()
                logger.info("stopping: calls in flight have %g seconds", settings.drain_s + settings.grace_s)
            await until_first(stack.aclose(), stop.second.wait())

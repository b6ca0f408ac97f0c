"""The composition root: Triton, catalog, services, interceptor, health and reflection become a server."""

import asyncio
import contextlib
import logging
from types import TracebackType
from typing import Self

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from gateway.admission import Gate
from gateway.api_keys import ApiKeys
from gateway.call_rules import Limits
from gateway.callers import Callers
from gateway.catalog import Catalog
from gateway.catalog_loading import CatalogLoader
from gateway.connection_guard import ConnectionGuard
from gateway.health import HEALTH, Health
from gateway.heap import keep_trimmed
from gateway.image_ids import ImageIds, secret_of
from gateway.interceptor import CallInterceptor
from gateway.loopback import Loopback
from gateway.models.image import PEAK_BYTES_PER_PIXEL
from gateway.pipelines.resources import Resources
from gateway.ports import ListenError, check_free
from gateway.readiness import Readiness, required_services, set_unready
from gateway.services.registry import FAMILIES, SERVICES
from gateway.settings import Settings
from gateway.tls import server_credentials
from gateway.triton_servers import GrpcTriton
from gateway.triton_shared_memory import SharedTensors
from gateway.trusted_proxies import TrustedProxies
from visiongate.address import join

logger = logging.getLogger(__name__)

# gRPC reads the largest of its integers as no limit.
_NEVER_MS = 2**31 - 1

# Four embeddings of SAM 2.
_SHARED_BESIDE = 64 << 20

KEEPALIVE = (
    # The server finds out clients that have vanished, and ends their calls.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Many clients ask every half minute whether the server is there. By default gRPC hangs up on them.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    # Whoever connects must say so much that it speaks gRPC.
    ("grpc.server_handshake_timeout_ms", 20_000),
)


class Gateway:
    """A running gateway: an async context manager that listens once entered.

    Raises CatalogError if Triton does not answer in time or has nothing that can be served, and what
    `process.check` raises; ValueError also without the shared memory that it must have. `image_id_secret` is
    that of the setting by default. `loopback` is the way of the HTTP front to it.
    """

    def __init__(
        self,
        settings: Settings,
        image_id_secret: bytes | None = None,
        loopback: Loopback | None = None,
    ) -> None:
        self._settings = settings
        self._image_id_secret = image_id_secret
        self._loopback = loopback
        self.port = settings.port

    async def __aenter__(self) -> Self:
        settings = self._settings
        # Before waiting for Triton: a fault in these is told at once.
        credentials = server_credentials(settings)
        self.authenticator = None if settings.api_keys is None else ApiKeys(settings.api_keys)
        image_ids = ImageIds(self._image_id_secret or secret_of(settings.image_id_secret))
        required = required_services(settings.required_services, SERVICES)
        _check_memory(settings)
        if settings.processes == 1:
            check_free(settings.host, settings.port, "--port")
        set_unready(SERVICES)
        async with contextlib.AsyncExitStack() as made:
            shared = _shared_tensors(settings)
            if shared is not None:
                made.callback(shared.close)
            self._triton = GrpcTriton(
                settings.triton,
                settings.triton_attempts,
                shared,
                must_share=settings.triton_shared_memory == "on",
            )
            made.push_async_callback(self._triton.close)
            loader = CatalogLoader(self._triton, settings.repository, FAMILIES)
            await loader.load_when_ready(settings.triton, wait_s=settings.triton_wait_s)
            logger.info("the models are loaded", extra={"fields": loader.exports})
            self._resources = Resources(self._triton, loader.catalog, settings, image_ids, shared)
            made.callback(self._resources.close)
            self._health = Health()
            self._server = self._make_server()
            made.push_async_callback(self._server.stop, None)
            readiness = Readiness(loader, SERVICES, self._health, required)
            # Before the port is bound: from then on the kernel puts connections into its queue.
            readiness.tell()
            self.port = self._listen(credentials)
            await self._server.start()
            made.pop_all()
        self._shared = shared
        guard = ConnectionGuard(
            {self.port, settings.metrics_port or self.port}, settings.max_connections_per_peer
        )
        self._tasks = [
            asyncio.create_task(work)
            for work in (readiness.watch(settings.health_interval_s), keep_trimmed(), guard.watch())
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        set_unready(SERVICES)
        self._health.stop()
        try:
            await asyncio.sleep(self._settings.drain_s)
            self._health.end_watches()
            self._interceptor.stop(self._settings.grace_s)
            await self._server.stop(self._settings.grace_s)
        except asyncio.CancelledError:
            self._interceptor.stop(0)
            await self._server.stop(None)  # cuts off the calls that the other stop waits for
            raise
        finally:
            self._resources.close()
            await self._triton.close()
            if self._shared is not None:
                self._shared.close()

    def _make_server(self) -> grpc.aio.Server:
        settings = self._settings
        callers = Callers(settings.max_caller_share, self.authenticator)
        gate = Gate(
            settings.max_concurrent_calls,
            settings.max_bytes_in_flight,
            settings.max_message_bytes,
            callers,
        )
        limits = Limits(
            settings.max_call_s,
            settings.max_receive_s,
            settings.max_send_s,
            settings.max_message_bytes,
            settings.max_response_bytes,
        )
        proxies = TrustedProxies(settings.trusted_proxies)
        self._interceptor = CallInterceptor(gate, limits, self.authenticator, self._loopback, proxies)
        server = grpc.aio.server(
            interceptors=[self._interceptor],
            options=[
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_connection_age_ms", int(min(settings.max_connection_age_s * 1000, _NEVER_MS))),
                *KEEPALIVE,
                # Two servers on one port would each get a part of the calls. By mistake, that is an error.
                ("grpc.so_reuseport", int(settings.processes > 1)),
            ],
        )
        for service in SERVICES:
            service.add(service.servicer(self._resources), server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection(
            [service.name for service in SERVICES] + [HEALTH, reflection.SERVICE_NAME], server
        )
        return server

    def _listen(self, credentials: grpc.ServerCredentials | None) -> int:
        host, port = self._settings.host, self._settings.port
        if self._loopback is not None:
            self._server.add_insecure_port(self._loopback.address)
        try:
            if credentials is None:
                return self._server.add_insecure_port(join(host, port))
            return self._server.add_secure_port(join(host, port), credentials)
        except RuntimeError as error:
            raise ListenError(host, port, "--port", error) from error

    @property
    def catalog(self) -> Catalog:
        """The models that are served: those of the moment."""
        return self._resources.catalog

    @property
    def served(self) -> str:
        """The models, as an operator reads them."""
        return ", ".join(f"{variant.family.name} {variant.name}" for variant in self.catalog.variants)


def _shared_tensors(settings: Settings) -> SharedTensors | None:
    """Return the shared memory for SAM's embeddings: those that are kept, and some that are not kept yet."""
    if settings.triton_shared_memory == "off":
        return None
    try:
        return SharedTensors(settings.sam_embedding_cache_bytes + _SHARED_BESIDE)
    except OSError as error:
        if settings.triton_shared_memory == "on":
            raise ValueError(f"triton_shared_memory is on, but there is none: {error}") from error
        logger.info("tensors are sent to Triton: there is no shared memory (%s)", error.strerror)
        return None


def _check_memory(settings: Settings) -> None:
    """Warn if one image may take more memory than all work under way is to have."""
    decoding, room = PEAK_BYTES_PER_PIXEL * settings.max_image_pixels, settings.max_bytes_in_flight / 2
    if decoding > 1.02 * room:
        logger.warning(
            "max_image_pixels is %d: such an image may take %d MB while it is decoded, and half of "
            "max_bytes_in_flight, which is for that, is %d MB: lower the first, or raise the second",
            *(settings.max_image_pixels, decoding / 1e6, room / 1e6),
        )

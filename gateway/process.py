"""A gateway process: what is checked before it starts, and how it runs until it is told to stop."""

import contextlib
import gc
import logging
from collections.abc import Callable

from gateway import library_output, tracing
from gateway.api_keys import read_keys
from gateway.connections import raise_descriptor_limit
from gateway.handshakes import Handshakes
from gateway.heap import limit_arenas
from gateway.heartbeat import Heartbeat
from gateway.http.front import HttpFront
from gateway.image_ids import read_secret
from gateway.ports import check_free
from gateway.readiness import required_services
from gateway.server import Gateway
from gateway.services.registry import SERVICES
from gateway.settings import Settings
from gateway.status_server import StatusServer
from gateway.stopping import StopSignals, until_first
from gateway.tls import server_credentials

logger = logging.getLogger(__name__)


def check(settings: Settings) -> None:
    """Raise what would keep a gateway from listening, before Triton is started or waited for.

    ListenError if a port is not free, ValueError if the files of API keys, of certificates or of the secret
    for image ids are not what they should be, or if no service has a name that is required.
    """
    check_free(settings.host, settings.port, "--port")
    if settings.metrics_port is not None:
        check_free(settings.metrics_host, settings.metrics_port, "--metrics-port")
    if settings.http_port is not None:
        check_free(settings.http_host, settings.http_port, "--http-port")
    required_services(settings.required_services, SERVICES)
    server_credentials(settings)
    if settings.api_keys is not None:
        read_keys(settings.api_keys)
    if settings.image_id_secret is not None:
        read_secret(settings.image_id_secret)


async def serve(
    settings: Settings,
    started: Callable[[Settings, str], None],
    stop: StopSignals,
    heartbeat: Heartbeat | None = None,
    image_id_secret: bytes | None = None,
) -> None:
    """Run a gateway until told to stop. Calls in flight may then finish, until told to stop again.

    `started` is called with the settings, in which the ports are those in use, and the models.
    `image_id_secret` is that of the setting by default.
    """
    limit_arenas()
    raise_descriptor_limit()
    heartbeat = heartbeat or Heartbeat()
    with (
        library_output.logged(Handshakes().explain),
        StatusServer(settings, heartbeat),
        tracing.exporting(settings),
    ):
        async with heartbeat.beating(), contextlib.AsyncExitStack() as stack:
            # It listens from the start on, and says that the models are not loaded yet.
            front = None if settings.http_port is None else HttpFront(settings)
            if front is not None:
                await stack.enter_async_context(front)
            gc.collect()  # takes a tenth of a second: before there are calls
            gateway = Gateway(settings, image_id_secret, None if front is None else front.loopback)
            await until_first(stack.enter_async_context(gateway), stop.first.wait())
            if not stop.first.is_set():
                if front is not None:
                    front.begin(gateway)
                taken = {"port": gateway.port, "http_port": front and front.port}
                # What is there now stays. Python need not look through it for garbage again and again.
                gc.freeze()
                started(settings.model_copy(update=taken), gateway.served)
                await stop.first.wait()
                logger.info("stopping: calls in flight have %g seconds", settings.drain_s + settings.grace_s)
            await until_first(stack.aclose(), stop.second.wait())

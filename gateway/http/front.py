"""The HTTP front of a gateway: it listens, and answers with what the gateway behind it answers.

It is in the gateway's process and on its event loop, and asks by gRPC. So keys, limits, deadlines, metrics
and traces are the gateway's alone.
"""

import asyncio
import logging
from types import TracebackType
from typing import Self

from uvicorn.server import ServerState

from gateway import ports, tls
from gateway.connection_guard import ConnectionGuard
from gateway.http.app import application
from gateway.http.calls import Calls
from gateway.http.protocol import MAX_HEADER_S, Protocol, config
from gateway.loopback import Loopback
from gateway.server import Gateway
from gateway.settings import Settings
from visiongate.address import join

logger = logging.getLogger(__name__)

_BACKLOG = 2048
_END_S = 3.0
"""Time for answers that are on their way when the gateway has ended."""
_TICK_S = 0.02


class HttpFront:
    """An async context manager that answers on `settings.http_port` inside.

    Until `begin` it answers 503. Raises ListenError.
    """

    def __init__(self, settings: Settings) -> None:
        assert settings.http_port is not None
        self._settings = settings
        self.port = settings.http_port
        self.loopback = Loopback()
        """The way to the gateway, which must listen on it."""

    async def __aenter__(self) -> Self:
        settings = self._settings
        self._calls = Calls(self.loopback)
        self._state = ServerState()
        self._config = config(application(settings, self._calls))
        context = tls.http_context(settings)
        listener = ports.listener(
            settings.http_host, self.port, "--http-port", is_shared=settings.processes > 1
        )
        self.port = listener.getsockname()[1]
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Protocol(self._config, self._state),
            sock=listener,
            ssl=context,
            ssl_handshake_timeout=None if context is None else MAX_HEADER_S,
            backlog=_BACKLOG,
        )
        guard = ConnectionGuard({self.port}, settings.max_connections_per_peer)
        self._guarding = asyncio.create_task(guard.watch())
        logger.info("HTTP is at %s", self.url)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._guarding.cancel()
        self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        try:
            async with asyncio.timeout(_END_S):
                while self._state.connections or self._state.tasks:  # noqa: ASYNC110  # uvicorn has no event
                    await asyncio.sleep(_TICK_S)
        except TimeoutError:
            logger.warning("%d HTTP connections are cut off", len(self._state.connections))
        finally:
            for task in list(self._state.tasks):
                task.cancel()
            for connection in list(self._state.connections):
                connection.transport.abort()
            await self._calls.close()

    def begin(self, gateway: Gateway) -> None:
        """Note that the gateway answers."""
        self._calls.begin(gateway.authenticator)

    @property
    def url(self) -> str:
        """The address of the front."""
        return url(self._settings, self.port)


def url(settings: Settings, port: int) -> str:
    """Return the address of a front that listens on a port."""
    scheme = "https" if settings.tls_certificate else "http"
    return f"{scheme}://{join(settings.http_host, port)}"

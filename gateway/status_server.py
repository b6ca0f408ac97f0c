"""The HTTP server for operators: /metrics, /livez, /readyz and /readyz/SERVICE, on a port of its own."""

import logging
import socket
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from types import TracebackType
from typing import Any, Self

from prometheus_client import REGISTRY, CollectorRegistry

from gateway import metrics
from gateway.health import full_name
from gateway.heartbeat import Heartbeat
from gateway.ports import ListenError
from gateway.settings import Settings
from visiongate.address import join

logger = logging.getLogger(__name__)


class StatusServer:
    """A context manager that answers on `settings.metrics_port` inside. Without a port it does nothing.

    Its thread goes on while the event loop stands still, and says so. Readiness comes from the metrics in
    `registry`: it also works in the parent of several gateway processes, with the heartbeat of that parent.
    """

    def __init__(
        self, settings: Settings, heartbeat: Heartbeat, registry: CollectorRegistry = REGISTRY
    ) -> None:
        self._heartbeat = heartbeat
        self._registry = registry
        self._host = settings.metrics_host
        self._requested_port = settings.metrics_port
        self._server: _Server | None = None

    def __enter__(self) -> Self:
        if self._requested_port is None:
            return self
        try:
            self._server = _Server(self._host, self._requested_port, self._heartbeat, self._registry)
        except OSError as error:
            raise ListenError(self._host, self._requested_port, "--metrics-port", error) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="status", daemon=True)
        self._thread.start()
        logger.info("/metrics, /livez and /readyz are at %s", join(self._host, self.port))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    @property
    def port(self) -> int:
        """The port in use, also if the setting is 0."""
        assert self._server is not None, "not entered, or without a port"
        return self._server.server_port


class _Server(ThreadingHTTPServer):
    """Answers each request in its own thread: a slow client delays nobody."""

    daemon_threads = True

    def __init__(self, host: str, port: int, heartbeat: Heartbeat, registry: CollectorRegistry) -> None:
        self.heartbeat = heartbeat
        self.registry = registry
        entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family = entries[0][0]
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        # Not HTTPServer's method: it asks DNS for the host's name, which may take many seconds.
        TCPServer.server_bind(self)
        self.server_port = self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        if isinstance(sys.exception(), ConnectionError):
            return  # the client hung up
        logger.exception("a request for metrics or readiness failed")


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 10
    server_version = "visiongate"
    sys_version = ""

    def do_GET(self) -> None:
        path, _, service = self.path.partition("?")[0].strip("/").partition("/")
        match path:
            case "livez" | "readyz" if self.server.heartbeat.stands_still:
                silence = (
                    f"the event loop has stood still for {self.server.heartbeat.silence_s:.0f} seconds\n"
                )
                self._answer(HTTPStatus.SERVICE_UNAVAILABLE, silence)
            case "metrics" if not service:
                body, content_type = metrics.render(self.headers.get("Accept", ""), self.server.registry)
                self._answer(HTTPStatus.OK, body, content_type)
            case "livez" if not service:
                self._answer(HTTPStatus.OK, "alive\n")
            case "readyz":
                self._answer_readiness(service)
            case _:
                self._answer(HTTPStatus.NOT_FOUND, "/metrics, /livez, /readyz or /readyz/SERVICE\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: probes come every few seconds."""

    def _answer_readiness(self, asked: str) -> None:
        """Answer for one service, or for the whole server with a line for each service.

        Tritons that do not answer have a line each, too: they are mostly why something is not ready.
        """
        readiness = metrics.readiness(self.server.registry)
        if not readiness:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, "starting\n")
            return
        is_ready = readiness.pop(metrics.WHOLE_SERVER, False)
        if asked:
            service = full_name(asked, readiness)
            if service is None:
                self._answer(HTTPStatus.NOT_FOUND, f"no such service; there are {', '.join(readiness)}\n")
                return
            is_ready = readiness[service]
            readiness = {service: is_ready}
        lines = [f"{name} {'ready' if ready else 'not ready'}\n" for name, ready in readiness.items()]
        lines += [f"Triton {name} does not answer\n" for name in metrics.silent_tritons(self.server.registry)]
        self._answer(HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE, "".join(lines))

    def _answer(
        self, status: HTTPStatus, body: str | bytes, content_type: str = "text/plain; charset=utf-8"
    ) -> None:
        data = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

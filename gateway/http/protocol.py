"""HTTP on one connection: uvicorn's protocol, for peers that may be slow, silent or hostile."""

import asyncio
import uuid

import grpc
from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gateway import metrics
from gateway.http.error_answers import refuse
from gateway.http.exchange import peer_of
from gateway.http.statuses import HttpError

MAX_HEADER_BYTES = 64 << 10
MAX_HEADER_S = 10.0
"""Most seconds until a request's header is here: from its first byte, or from the start of a connection."""
KEEP_ALIVE_S = 75
"""Seconds that a connection stays open without requests. More than the minute of common proxies."""


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol, which by itself waits for the header of a request as long as its peer likes.

    The rest of a body that nobody reads any more is passed over, for that time too: to close the connection
    at once would keep some callers from reading the answer.
    """

    def __init__(self, config: Config, state: ServerState) -> None:
        super().__init__(config, state, {})
        self._timer: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._is_in_body = self._has_progress = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_header()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._await_header()
        self._has_progress = False
        super().data_received(data)
        if not self._is_in_body and not self._has_progress:
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES and not self.transport.is_closing():
                self.send_400_response(f"the request's header is over {MAX_HEADER_BYTES} bytes, the limit")

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        self._is_in_body = self._has_progress = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_in_body, self._has_progress = False, True
        self._header_bytes = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request of HTTP, and close the connection."""
        self._stop_waiting()
        request_id = uuid.uuid4().hex
        error = HttpError(400, grpc.StatusCode.INVALID_ARGUMENT, msg, reason="NOT_HTTP")
        answer = refuse(error, request_id, peer_of({"client": self.client}), {})
        metrics.HTTP_ANSWERS.labels(str(answer.status)).inc()
        body = b"".join(answer.pieces)
        head = (
            f"HTTP/1.1 400 Bad Request\r\nx-request-id: {request_id}\r\nconnection: close\r\n"
            f"content-type: {answer.media_type}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _await_header(self) -> None:
        self._header_bytes = 0
        self._timer = self.loop.call_later(MAX_HEADER_S, self._give_up)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        self.transport.close()


def config(application: ASGIApp) -> Config:
    """Return uvicorn's settings. It writes no log of its own but for faults, and knows nothing of proxies."""
    settings = Config(
        application,
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    settings.load()
    return settings

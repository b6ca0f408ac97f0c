"""HTTP on one connection: uvicorn's protocol, for peers that may be slow, silent or hostile."""

import asyncio
import uuid

import grpc
import httptools
from starlette.types import ASGIApp
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from gateway import metrics
from gateway.http.error_answers import refuse
from gateway.http.exchange import peer_of
from gateway.http.statuses import HttpError

MAX_HEADER_BYTES = 64 << 10
"""Of a request's header, or of what follows its body."""
MAX_WAITING = 16
"""Requests of a connection that are here before their turn. It is closed when there are more."""
MAX_HEADER_S = 10.0
"""Most seconds until a request's header is here: from its first byte, or from the start of a connection."""
KEEP_ALIVE_S = 75
"""Seconds that a connection stays open without requests. More than the minute of common proxies."""


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol, which by itself waits for the header of a request as long as its peer likes.

    An answer has left once the kernel has all of it.

    The rest of a body that nobody reads any more is passed over, for that time too: to close the connection
    at once would keep some callers from reading the answer.
    """

    def __init__(self, config: Config, state: ServerState) -> None:
        super().__init__(config, state, {})
        self._timer: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._is_in_body = self._has_progress = self._wants_upgrade = False
        self._running: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # So whoever sends more waits until nothing is held here.
        transport.set_write_buffer_limits(high=1)  # 0 stops TLS
        self._await_header()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        # uvicorn tells the request that came last.
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._await_header()
        self._has_progress = False
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except httptools.HttpParserCallbackError:
            self.send_400_response("the request's target is no path of HTTP/1.1")
        except httptools.HttpParserError as error:
            self.send_400_response(f"the request breaks the rules of HTTP/1.1: {error}")
        if not self._has_progress:
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES and not self.transport.is_closing():
                part = "what follows the request's body" if self._is_in_body else "the request's header"
                self.send_400_response(f"{part} is over {MAX_HEADER_BYTES} bytes, the limit")

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # Java's client asks for HTTP/2 like this. The parser takes the body for that already, so it must
            # not see the wish.
            version = self.parser.get_http_version().encode()
            head = [b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, version)]
            head += [b"%b: %b\r\n" % pair for pair in self.headers if pair[0] != b"upgrade"]
            self._parse(b"".join([*head, b"\r\n", data[upgrade.args[0] :]]))

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_in_body:  # what follows a body must not pass for a header
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        self._note_progress()
        self._wants_upgrade = self.parser.should_upgrade()
        if self.parser.get_method() == b"CONNECT":
            raise ValueError("this is no proxy")
        if len(self.pipeline) == MAX_WAITING:
            raise ValueError("too many requests wait for the answers of others")
        if not self._wants_upgrade:
            super().on_headers_complete()
            self._is_in_body = True

    def on_body(self, body: bytes) -> None:
        self._note_progress()
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._note_progress()
        self._is_in_body = False
        if not self._wants_upgrade:
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request of HTTP, and close the connection.

        Only close it where that would pass for the answer to another request.
        """
        self._stop_waiting()
        if not self._can_answer():
            self.transport.close()
            return
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

    def _can_answer(self) -> bool:
        """Return whether the next answer belongs to the request that is coming in."""
        if self._is_in_body:
            return not self.cycle.response_started and not self.pipeline
        return self.cycle is None or self.cycle.response_complete

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _note_progress(self) -> None:
        self._has_progress = True
        self._header_bytes = 0

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

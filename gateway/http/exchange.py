"""One HTTP request and its answer: what it brings, within limits, and how the answer leaves."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import grpc
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from gateway import metrics
from gateway.call import REQUEST_ID, valid_id
from gateway.callers import Caller, Callers, Portions
from gateway.errors import MessageTooLargeError
from gateway.http.statuses import HttpError
from gateway.refusals import check_share, refuse
from visiongate.address import join

SMALL_BYTES = 16 << 10
CHUNK_BYTES = 64 << 10
"""An answer up to this size is sent as a whole, with its length. A larger one is sent while it is written."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may have, and how long it and its answer may be on their way."""

    max_body_bytes: int
    max_message_bytes: int
    max_receive_s: float
    max_send_s: float


class Room:
    """Memory for bodies: their bytes as they arrive, and all that is made of them. It belongs to one loop.

    What one caller may have is as in the gateway. But a caller is always an address: keys are checked later.
    """

    def __init__(self, max_bytes: int, max_share: float) -> None:
        self._callers = Callers(max_share)
        self._bytes = Portions(max_bytes)

    @contextlib.contextmanager
    def share_of(self, address: str) -> Iterator["Share"]:
        """Lend a request's part of it."""
        share = Share(self._bytes, self._callers.find("", address))
        try:
            yield share
        finally:
            share.take(-share.size)


class Share:
    """What one request has of the room, `size` bytes."""

    def __init__(self, room: Portions, caller: Caller) -> None:
        self._room = room
        self._caller = caller
        self.size = 0

    def add(self, size: int) -> None:
        """Count more bytes; raise OverloadedError if there is no room for them."""
        check_share(self._room, self._caller, size, "bytes for HTTP")
        if self._room.taken + size > self._room.amount:
            refuse(
                f"the server holds {self._room.amount} bytes over HTTP, and has nearly as many now", "bytes"
            )
        self.take(size)

    def take(self, change: int) -> None:
        """Count more bytes, or fewer, whether there is room or not."""
        self.size += change
        self._room.take(self._caller, change)
        metrics.HTTP_BYTES.set(self._room.taken)


@dataclass(slots=True)
class Answer:
    """What is sent back. `pieces` may be written while they are sent."""

    pieces: Iterable[bytes]
    media_type: str = "application/json"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class Exchange:
    """A request whose body is still to be read, and to which an answer is still to be sent."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, limits: Limits, share: Share) -> None:
        self.scope = scope
        self.limits = limits
        self.share = share
        self._receive = receive
        self._send = send
        self.headers = Headers(scope=scope)
        self.request_id = valid_id(self.headers.get(REQUEST_ID, ""))
        self.peer = peer_of(scope)
        self.api_key = ""
        """The caller's API key, where it is in none of the headers for it."""

    @cached_property
    def media_type(self) -> str:
        """The type of the request's body, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives. Raise HttpError if it is too large, too slow or compressed."""
        self._check_headers()
        size = 0
        try:
            async with asyncio.timeout(self.limits.max_receive_s):
                while True:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise DisconnectedError
                    body = message.get("body", b"")
                    size += len(body)
                    if size > self.limits.max_body_bytes:
                        raise TooLargeError("the request's body", self.limits.max_body_bytes)
                    self.share.add(len(body))
                    if body:
                        yield body
                    if not message.get("more_body"):
                        return
        except TimeoutError:
            raise HttpError(
                408,
                grpc.StatusCode.DEADLINE_EXCEEDED,
                f"the request did not arrive within {self.limits.max_receive_s:g} seconds",
                reason="MAX_RECEIVE_TIME",
                headers={"connection": "close"},
            ) from None

    async def body(self) -> bytes:
        """Return the whole body."""
        chunks = [chunk async for chunk in self.chunks()]
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def until_disconnect(self) -> None:
        """Return when the caller has left. The body must have been read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def send(self, answer: Answer) -> None:
        """Send the answer. Raise TimeoutError if the caller does not take it in time."""
        metrics.HTTP_ANSWERS.labels(str(answer.status)).inc()
        async with asyncio.timeout(self.limits.max_send_s):
            await self._send_answer(answer)

    async def _send_answer(self, answer: Answer) -> None:
        chunks = _chunks(answer.pieces)
        first = next(chunks, b"")
        if len(first) >= CHUNK_BYTES:
            await asyncio.sleep(0)
        second = next(chunks, None)
        headers = {"content-type": answer.media_type, REQUEST_ID: self.request_id, **answer.headers}
        if second is None:
            headers["content-length"] = str(len(first))
        await self._send(
            {
                "type": "http.response.start",
                "status": answer.status,
                "headers": [
                    (name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()
                ],
            }
        )
        # A small answer is left to the kernel, and to the connection.
        is_small = second is None and len(first) <= SMALL_BYTES
        await self._send({"type": "http.response.body", "body": first, "more_body": not is_small})
        if is_small:
            return
        del first
        while second is not None:
            await self._send({"type": "http.response.body", "body": second, "more_body": True})
            await asyncio.sleep(0)  # sending waits for nobody while the caller takes all at once
            second = next(chunks, None)
        # By itself: it waits until the caller has taken all before.
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def _check_headers(self) -> None:
        if self.headers.get("content-encoding", "identity").lower() != "identity":
            raise HttpError(
                415, grpc.StatusCode.INVALID_ARGUMENT, "content-encoding: bodies must not be compressed"
            )
        length = self.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.limits.max_body_bytes:
            raise TooLargeError("the request's body", self.limits.max_body_bytes)


class TooLargeError(HttpError):
    """A request has too many bytes, or what is made of it has."""

    def __init__(self, what: str, max_bytes: int) -> None:
        error = MessageTooLargeError(max_bytes)
        super().__init__(
            413, error.code, f"{what} has over {max_bytes} bytes, the limit", reason=error.reason
        )


class DisconnectedError(Exception):
    """The caller has left in the middle of its request."""


def peer_of(scope: Mapping[str, Any]) -> str:
    """Return gRPC's name for the caller's end of the connection: ipv4:10.0.0.7:52114."""
    host, port = scope["client"] or ("", 0)
    host = host.removeprefix("::ffff:")
    return f"ipv{6 if ':' in host else 4}:{join(host, port)}" if host else ""


def _chunks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the pieces joined to chunks of about CHUNK_BYTES."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= CHUNK_BYTES:
            yield b"".join(held)
            held.clear()
            size = 0
    if held:
        yield b"".join(held)

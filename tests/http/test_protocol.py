"""HTTP on bare sockets: peers that are slow, silent, hasty or not clear about where a request ends."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from gateway.http import protocol
from gateway.http.front import HttpFront
from gateway.settings import Settings
from http_front import serving

HOST = b"Host: localhost\r\n"
MODELS = b"GET /v1/models HTTP/1.1\r\n" + HOST
TEXTS = b"POST /v1/texts:embed HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
CHUNKED = TEXTS + b"Transfer-Encoding: chunked\r\n\r\n"
EMPTY = b'{"texts": []}'
PATIENCE_S = 30


@pytest.fixture(scope="module")
async def front(demo_settings: Settings) -> AsyncIterator[HttpFront]:
    changed = demo_settings.model_copy(update={"max_receive_s": 0.5})
    async with serving(changed) as front:
        yield front


class Peer:
    """A connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, *parts: bytes) -> None:
        """Send parts, each in a packet of its own."""
        for part in parts:
            self._writer.write(part)
            await self._writer.drain()
            await asyncio.sleep(0.01)

    async def answer(self) -> tuple[int, Any]:
        """Return the next answer's status, and what its JSON says."""
        async with asyncio.timeout(PATIENCE_S):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.partition("content-length: ")[2].partition("\r")[0] or 0)
            body = await self._reader.readexactly(length)
        return int(head.split()[1]), json.loads(body or b"null")

    async def rest(self) -> bytes:
        """Return what comes until the connection is closed."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await self._reader.read()
            except ConnectionResetError:
                return b""

    async def drip(self, part: bytes) -> None:
        """Send a part again and again until the connection is closed."""
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionError):
                while True:
                    await self.send(part)

    def end(self) -> None:
        """Send no more, but listen on."""
        self._writer.write_eof()

    def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def connected(front: HttpFront) -> AsyncIterator[Peer]:
    peer = Peer(*await asyncio.open_connection("127.0.0.1", front.port))
    yield peer
    peer.close()


def sized(body: bytes, length: int | None = None) -> bytes:
    return b"Content-Length: %d\r\n\r\n" % (len(body) if length is None else length) + body


async def test_requests_in_many_pieces(front: HttpFront) -> None:
    request = TEXTS + sized(EMPTY)
    async with connected(front) as peer:
        for _ in range(2):
            await peer.send(*(request[place : place + 7] for place in range(0, len(request), 7)))
            assert (await peer.answer())[0] == 200
        await peer.send(
            CHUNKED,
            b"5;a=b\r\n",
            EMPTY[:5],
            b"\r\n8\r\n",
            EMPTY[5:],
            b"\r\n0\r\n\r\n",
        )
        assert (await peer.answer())[0] == 200


async def test_several_requests_at_once_are_answered_in_order(front: HttpFront) -> None:
    async with connected(front) as peer:
        await peer.send(TEXTS + sized(EMPTY) + MODELS + b"\r\n" + TEXTS + sized(b"[]") + MODELS + b"\r\n")
        answers = [await peer.answer() for _ in range(4)]
    assert [status for status, _ in answers] == [200, 200, 400, 200]
    assert "models" in answers[1][1]
    assert "models" in answers[3][1]


async def test_too_many_requests_at_once(front: HttpFront) -> None:
    async with connected(front) as peer:
        await peer.send((MODELS + b"\r\n") * (protocol.MAX_WAITING + 2))
        assert await peer.rest() == b""
    await nothing_is_counted()


async def test_an_answer_is_never_taken_for_that_of_another_request(front: HttpFront) -> None:
    async with connected(front) as peer:
        await peer.send(MODELS + b"\r\ngarbage\r\n\r\n")
        assert await peer.rest() == b""
    async with connected(front) as peer:
        await peer.send(MODELS + b"\r\n")
        assert (await peer.answer())[0] == 200
        await peer.send(b"garbage\r\n\r\n")
        assert (await peer.answer())[0] == 400
        assert await peer.rest() == b""


async def test_a_slow_body(front: HttpFront) -> None:
    async with connected(front) as peer:
        await peer.send(TEXTS + sized(b'{"texts"', 100))
        status, error = await peer.answer()
        assert status == 408
        assert error["message"] == "the request did not arrive within 0.5 seconds"
        assert await peer.rest() == b""


@pytest.mark.parametrize("start", [b"", b"G", MODELS + b"a: "])
async def test_a_slow_header(start: bytes, front: HttpFront, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_HEADER_S", 0.3)
    async with connected(front) as peer:
        await peer.send(start)
        await peer.drip(b"a")


async def test_a_header_without_end(front: HttpFront) -> None:
    async with connected(front) as peer:
        await peer.send(MODELS, *[b"a: " + b"b" * 1000 + b"\r\n"] * 66)
        status, error = await peer.answer()
        assert status == 400
        assert error["message"] == "the request's header is over 65536 bytes, the limit"


@pytest.mark.parametrize("line", [b"a: " + b"b" * 10_000 + b"\r\n", b"c" * 10_000])
async def test_trailers_without_end(line: bytes, front: HttpFront) -> None:
    async with connected(front) as peer:
        await peer.send(CHUNKED + b"2\r\n{}\r\n0\r\n", *[line] * 7)
        status, error = await peer.answer()
        assert status == 400
        assert "over 65536 bytes" in error["message"] or "breaks the rules" in error["message"]


async def test_trailers_are_no_headers(front: HttpFront) -> None:
    async with connected(front) as peer:
        await peer.send(
            TEXTS
            + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(EMPTY)
            + EMPTY
            + b"\r\n0\r\nHost: evil.example\r\n\r\n"
        )
        assert (await peer.answer())[0] == 200


async def test_whoever_waits_for_permission_gets_it(front: HttpFront) -> None:
    async with connected(front) as peer:
        await peer.send(TEXTS + b"Expect: 100-continue\r\n" + sized(b"", len(EMPTY)))
        assert await peer.answer() == (100, None)
        await peer.send(EMPTY)
        assert (await peer.answer())[0] == 200


async def test_whoever_waits_for_permission_is_told_why_not(front: HttpFront) -> None:
    async with connected(front) as peer:
        await peer.send(TEXTS + b"Expect: 100-continue\r\n" + sized(b"", 1 << 40))
        assert (await peer.answer())[0] == 413


async def test_a_body_that_nobody_reads(front: HttpFront) -> None:
    async with connected(front) as peer:
        await peer.send(b"POST /v1/models HTTP/1.1\r\n" + HOST + sized(b"x" * 100_000, 200_000))
        assert (await peer.answer())[0] == 405
        await peer.send(b"x" * 100_000 + MODELS + b"\r\n")
        assert (await peer.answer())[0] == 200


async def test_the_rest_of_a_body_that_nobody_reads_has_its_time(
    front: HttpFront, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "MAX_HEADER_S", 0.3)
    async with connected(front) as peer:
        await peer.send(b"POST /v1/models HTTP/1.1\r\n" + HOST + sized(b"x", 200_000))
        assert (await peer.answer())[0] == 405
        await peer.drip(b"x")


async def test_half_a_request(front: HttpFront) -> None:
    async with connected(front) as peer:
        await peer.send(TEXTS + sized(EMPTY, 100))
        peer.end()
        assert await peer.rest() == b""
    await nothing_is_counted()


@pytest.mark.parametrize("wish", [b"h2c", b"websocket", b"TLS/1.2, h2c"])
async def test_other_protocols_are_not_spoken(wish: bytes, front: HttpFront) -> None:
    """As if they were not asked for: Java's client asks with each request."""
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\nUpgrade: %b\r\n" % wish
    async with connected(front) as peer:
        for _ in range(2):
            request = TEXTS + upgrade + sized(EMPTY)
            await peer.send(request[:-4], request[-4:] + MODELS + upgrade + b"\r\n")
            assert (await peer.answer())[0] == 200
            assert "models" in (await peer.answer())[1]


async def test_tls_to_a_plain_port(front: HttpFront) -> None:
    with pytest.raises(ssl.SSLError):
        await asyncio.open_connection("127.0.0.1", front.port, ssl=ssl.create_default_context())


async def test_all_that_goes_on(front: HttpFront) -> None:
    async with httpx.AsyncClient(base_url=front.url) as client:
        assert (await client.get("/v1/models")).status_code == 200
    await nothing_is_counted()


async def nothing_is_counted() -> None:
    for _ in range(100):
        counted = [
            REGISTRY.get_sample_value(f"visiongate_{name}")
            for name in ("http_bytes", "calls_in_flight", "bytes_in_flight")
        ]
        if counted == [0, 0, 0]:
            return
        await asyncio.sleep(0.05)
    pytest.fail(f"still counted: {counted}")

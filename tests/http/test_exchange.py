"""Room for bodies, callers that leave, and callers that do not take what they asked for."""

import asyncio
import base64
import contextlib
import io
import json
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from PIL import Image

from gateway.errors import StatusError
from gateway.http.exchange import Answer, DisconnectedError, Exchange, Limits, Room, Share, peer_of
from gateway.http.statuses import HttpError
from gateway.services.models import ModelService
from gateway.settings import Settings
from http_front import serving

from .test_protocol import HOST, nothing_is_counted

_FILE = io.BytesIO()
Image.new("RGB", (64, 48)).save(_FILE, "PNG")
LARGE = {
    "image": {"encoded": base64.b64encode(_FILE.getvalue()).decode()},
    "prompts": [{"box": {"x_max": 30, "y_max": 30}}] * 400,
    "include_logits": True,
}
"""Its answer has 14 MB: no kernel holds that for a caller that does not take it."""
LIMITS = Limits(max_body_bytes=100, max_message_bytes=100, max_receive_s=0.2, max_send_s=0.2)


def exchange(
    share: Share,
    *chunks: bytes,
    send: Callable[[Any], Awaitable[None]] | None = None,
    headers: dict[str, str] | None = None,
) -> Exchange:
    """A request of these chunks, after which nothing comes."""
    last = len(chunks) - 1
    messages: list[Any] = [
        {"type": "http.request", "body": chunk, "more_body": index < last}
        for index, chunk in enumerate(chunks)
    ]

    async def receive() -> Any:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop(0)

    async def forget(message: Any) -> None:
        pass

    pairs = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": "http", "client": ("10.0.0.7", 1), "headers": pairs}
    return Exchange(scope, receive, send or forget, LIMITS, share)


def test_bytes_are_given_back() -> None:
    room = Room(1000, 0.75)
    with room.share_of("10.0.0.7") as share:
        share.add(600)
        share.take(300)
        with room.share_of("10.0.0.7") as other:
            with pytest.raises(StatusError, match="the server holds 1000 bytes over HTTP") as refused:
                other.add(101)
            assert refused.value.fault == "load"
    with room.share_of("10.0.0.7") as share:
        share.add(1000)


def test_one_caller_of_several_does_not_get_all() -> None:
    room = Room(1000, 0.5)
    with room.share_of("10.0.0.7") as first, room.share_of("10.0.0.8") as other:
        first.add(400)
        with pytest.raises(StatusError, match="your address"):
            first.add(101)
        other.add(400)


async def test_a_body_in_pieces() -> None:
    with Room(1000, 1).share_of("10.0.0.7") as share:
        assert await exchange(share, b"ab", b"", b"c").body() == b"abc"
        assert share.size == 3


@pytest.mark.parametrize(
    ("chunks", "headers", "status"),
    [
        ([b"a" * 60, b"a" * 41], {}, 413),
        ([b"a"], {"content-length": "101"}, 413),
        ([b"a"], {"content-encoding": "gzip"}, 415),
        ([], {}, 408),
    ],
)
async def test_bodies_that_are_refused(chunks: list[bytes], headers: dict[str, str], status: int) -> None:
    with Room(1000, 1).share_of("10.0.0.7") as share, pytest.raises(HttpError) as refused:
        await exchange(share, *chunks, headers=headers).body()
    assert refused.value.http_status == status


async def test_whoever_leaves_within_its_body() -> None:
    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pytest.fail("nobody is there")

    scope = {"type": "http", "client": ("10.0.0.7", 1), "headers": []}
    with Room(1000, 1).share_of("10.0.0.7") as share, pytest.raises(DisconnectedError):
        await Exchange(scope, receive, send, LIMITS, share).body()


async def test_an_answer_in_pieces_is_written_while_it_is_sent() -> None:
    sent: list[Any] = []
    written = 0

    def pieces() -> Iterator[bytes]:
        nonlocal written
        for _ in range(8):
            written += 1
            yield b"x" * (256 << 10)

    async def send(message: Any) -> None:
        sent.append((message, written))

    with Room(1000, 1).share_of("10.0.0.7") as share:
        await exchange(share, b"", send=send).send(Answer(pieces()))
    bodies = [message["body"] for message, _ in sent[1:]]
    assert sum(map(len, bodies)) == 2 << 20
    assert [message["more_body"] for message, _ in sent[1:]] == [True] * (len(bodies) - 1) + [False]
    assert [count for _, count in sent[1:]] == [2, 2, 3, 4, 5, 6, 7, 8, 8]
    assert b"content-length" not in dict(sent[0][0]["headers"])


async def test_an_answer_that_is_not_taken() -> None:
    async def send(message: Any) -> None:
        await asyncio.Event().wait()

    with Room(1000, 1).share_of("10.0.0.7") as share, pytest.raises(TimeoutError):
        await exchange(share, b"", send=send).send(Answer([b"x"]))


@pytest.mark.parametrize(
    ("client", "name"),
    [
        (("10.0.0.7", 5), "ipv4:10.0.0.7:5"),
        (("::ffff:10.0.0.7", 5), "ipv4:10.0.0.7:5"),
        (("2001:db8::1", 5), "ipv6:[2001:db8::1]:5"),
        (None, ""),
    ],
)
def test_names_of_peers(client: tuple[str, int] | None, name: str) -> None:
    assert peer_of({"client": client}) == name


async def test_whoever_does_not_take_its_answer_loses_the_connection(
    demo_settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    changed = demo_settings.model_copy(update={"max_send_s": 0.5})
    async with serving(changed) as front:
        with socket.socket() as caller:
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await asyncio.to_thread(caller.connect, ("127.0.0.1", front.port))
            caller.settimeout(60)
            body = json.dumps(LARGE).encode()
            head = b"POST /v1/regions:segment HTTP/1.1\r\nContent-Type: application/json\r\n" + HOST
            await asyncio.to_thread(caller.sendall, head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            async with asyncio.timeout(60):
                while "has not taken the answer of /v1/regions:segment within 0.5 seconds" not in caplog.text:  # noqa: ASYNC110  # a log has no event
                    await asyncio.sleep(0.05)
            got = await asyncio.to_thread(drain, caller)
            assert got.startswith(b"HTTP/1.1 200 OK")
            assert not got.endswith(b"\r\n0\r\n\r\n")
        await nothing_is_counted()


def drain(caller: socket.socket) -> bytes:
    got = b""
    with contextlib.suppress(ConnectionError):
        while chunk := caller.recv(1 << 20):
            got += chunk
    return got


@pytest.mark.parametrize("behind", [b"", b"GET /v1/models HTTP/1.1\r\n" + HOST + b"\r\n"])
async def test_the_call_of_whoever_leaves_is_cancelled(
    behind: bytes, demo_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def wait(*_: object) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    monkeypatch.setattr(ModelService, "ListModels", wait)
    async with serving(demo_settings) as front:
        _, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(b"GET /v1/models HTTP/1.1\r\n" + HOST + b"\r\n" + behind)
        async with asyncio.timeout(30):
            await begun.wait()
            writer.close()
            await ended.wait()
        await nothing_is_counted()

"""A caller that sends a large message, a byte a second. No gRPC library would: it speaks HTTP/2 by itself."""

import asyncio
import contextlib
from collections.abc import Iterator

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING = 0, 1, 3, 4, 6
END_STREAM, ACKNOWLEDGED, END_HEADERS = 1, 1, 4
STREAM = 1
LENGTH = 30 << 20
"""Of the message, as its first bytes say."""


async def send_slowly(address: str, method: str, *, key: str = "", host: str = "127.0.0.1") -> None:
    """Call a method over a connection of its own, until the server ends the call or the connection.

    key: an API key. host: the address to call from.
    """
    reader, writer = await asyncio.open_connection(*address.rsplit(":", 1), local_addr=(host, 0))
    headers = b"".join(_header_fields(address, method, key))
    writer.write(PREFACE + _frame(SETTINGS) + _frame(HEADERS, END_HEADERS, STREAM, headers))
    writer.write(_frame(DATA, 0, STREAM, b"\0" + LENGTH.to_bytes(4, "big")))
    drip = asyncio.create_task(_drip(writer))
    try:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readexactly(9)
                payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
                kind, flags = head[3:5]
                if kind == RESET or (kind == HEADERS and flags & END_STREAM):
                    return
                if kind in (SETTINGS, PING) and not flags & ACKNOWLEDGED:
                    writer.write(_frame(kind, ACKNOWLEDGED, payload=payload if kind == PING else b""))
    finally:
        drip.cancel()
        writer.close()


async def _drip(writer: asyncio.StreamWriter) -> None:
    while not writer.is_closing():
        writer.write(_frame(DATA, 0, STREAM, b"x"))
        await asyncio.sleep(1)


def _frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _header_fields(address: str, method: str, key: str) -> Iterator[bytes]:
    """Each header as HPACK has it if nothing is compressed. None is longer than 126 bytes."""
    for header in (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", address),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("x-api-key", key),
    ):
        yield b"\0" + b"".join(bytes((len(text),)) + text.encode() for text in header)

"""An HTTPS server on loopback that says what tests tell it to, and remembers what it was asked."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any

import trustme

# Two of loopback's many addresses: tests take the one for public, and leave the other what it is.
PUBLIC, PRIVATE = "127.0.0.2", "127.0.0.1"
# In an answer: what comes next does not come.
SILENCE = b"(silence)"


class HttpsSite:
    """Answers GET /path with the raw bytes of `answers["/path"]`, after which it hangs up.

    Where it `stays`, it waits for the next request instead.
    """

    def __init__(self, port: int, answers: dict[str, bytes]) -> None:
        self.port = port
        self.answers = answers
        self.requests: list[str] = []
        self.stays = False
        self._tasks = set[asyncio.Task[None]]()

    @property
    def paths(self) -> list[str]:
        return [request.split()[1] for request in self.requests]

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._answer(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def wait_until_left(self) -> None:
        """Until all clients have hung up."""
        await asyncio.gather(*self._tasks)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Clients may hang up at any time.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
                spoken, silence, _ = self.answers[self.paths[-1]].partition(SILENCE)
                writer.write(spoken)
                await writer.drain()
                if silence:
                    await reader.read()
                if not self.stays:
                    break
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def https_site(
    authority: trustme.CA, address: str, *names: str, answers: Mapping[str, bytes] | None = None
) -> AsyncIterator[HttpsSite]:
    """A server at an address, with a certificate for some names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    site = HttpsSite(0, dict(answers or {}))
    server = await asyncio.start_server(site.connected, address, 0, ssl=context)
    async with server:
        site.port = server.sockets[0].getsockname()[1]
        yield site
        await site.wait_until_left()


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """A client's context that trusts the authority, and no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


def file_answer(data: bytes, **headers: str) -> bytes:
    """200, with a file."""
    return _answer("200 OK", data, {"Content_Length": str(len(data))} | headers)


def redirect_answer(location: str, status: str = "302 Found") -> bytes:
    return _answer(status, b"", {"Location": location, "Set_Cookie": "session=1"})


def status_answer(status: str) -> bytes:
    return _answer(status, b"", {"Content_Length": "0"})


def _answer(status: str, body: bytes, headers: Mapping[str, Any]) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body

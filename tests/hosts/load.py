"""Callers of the edge: by gRPC with our client, and by JSON; as users call, and without repeating anything.

Only the last show what edge and gateways do by themselves. Each caller connects anew every few calls.
"""

import asyncio
import base64
import contextlib
import io
import itertools
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
from PIL import Image

from hosts.cluster import Cluster, until
from visiongate import AsyncClient, VisiongateError
from visiongate.operations import Operation, detection, embedding

TIMEOUT_S = 60.0
CALLERS_OF_EACH_WAY = 2
PAUSE_S = 0.15
CALLS_OF_A_CONNECTION = 20
# Of so many calls one is about a picture, or looks for things in one; the others are about texts.
EMBED_EVERY, DETECT_EVERY = 4, 30
PHRASES = ["a red circle"]
# What HTTP.md says of statuses that another attempt may mend.
_MENDED_BY_WAITING = (429, 502, 503, 504)
_PAUSE_AFTER_FAILURE_S = 0.5

Ask = Callable[[int], Awaitable[object]]
"""Make the call of this number. What it raises is its failure."""
Way = Callable[[Cluster], AbstractAsyncContextManager[Ask]]
"""Connect, and lend what calls by the connection."""


@dataclass(frozen=True)
class Call:
    """A call that has ended. outcome: OK, or what its caller was told. start_s: by time.monotonic()."""

    way: str
    start_s: float
    seconds: float
    outcome: str

    @property
    def end_s(self) -> float:
        return self.start_s + self.seconds

    @property
    def has_failed(self) -> bool:
        return self.outcome != "OK"


def picture(number: int) -> bytes:
    """A small JPEG file that no cache knows."""
    pixels = np.random.default_rng(number).integers(0, 256, (96, 128, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def grpc(*, wait: bool, tls: bool) -> Way:
    """Our client. wait: whether it repeats what waiting mends."""

    @asynccontextmanager
    async def connect(cluster: Cluster) -> AsyncIterator[Ask]:
        async with AsyncClient(
            cluster.tls_address if tls else cluster.address,
            api_key=cluster.key,
            tls=tls,
            root_certificates=cluster.folder / "ca.pem" if tls else None,
            timeout=TIMEOUT_S,
            wait=wait,
        ) as client:

            async def ask(number: int) -> None:
                await client.call(_operation(number))

            yield ask

    return connect


def stream(*, tls: bool) -> Way:
    """One stream of our client's, on which each call is an item."""

    @asynccontextmanager
    async def connect(cluster: Cluster) -> AsyncIterator[Ask]:
        asked: asyncio.Queue[int | None] = asyncio.Queue()
        answers: dict[int, asyncio.Future[object]] = {}

        async def items() -> AsyncIterator[tuple[int, Operation[Any]]]:
            while (number := await asked.get()) is not None:
                yield number, _operation(number)

        async def read(client: AsyncClient) -> None:
            try:
                async for number, result in client.stream(items()):
                    answers.pop(number).set_result(result)
            except VisiongateError as error:
                for answer in answers.values():
                    answer.set_result(error)

        async def ask(number: int) -> None:
            answers[number] = answer = asyncio.get_running_loop().create_future()
            asked.put_nowait(number)
            await asyncio.wait((answer, reading), return_when=asyncio.FIRST_COMPLETED)
            if isinstance(result := answer.result(), VisiongateError):
                raise result

        async with AsyncClient(
            cluster.tls_address if tls else cluster.address,
            api_key=cluster.key,
            tls=tls,
            root_certificates=cluster.folder / "ca.pem" if tls else None,
            timeout=TIMEOUT_S,
        ) as client:
            reading = asyncio.create_task(read(client))
            try:
                yield ask
                asked.put_nowait(None)
                await reading
            finally:
                reading.cancel()

    return connect


def _operation(number: int) -> Operation[Any]:
    if number % DETECT_EVERY == 0:
        return detection.detect(picture(number), PHRASES)
    if number % EMBED_EVERY == 0:
        return embedding.embed_images([picture(number)])
    return embedding.embed_texts([f"text {number}"])


def json(*, wait: bool, tls: bool) -> Way:
    """HTTP with JSON. wait: whether statuses that waiting mends, and broken connections, are repeated."""

    @asynccontextmanager
    async def connect(cluster: Cluster) -> AsyncIterator[Ask]:
        verify = ssl.create_default_context(cafile=str(cluster.folder / "ca.pem"))
        url = f"https://{cluster.tls_address}" if tls else f"http://{cluster.address}"
        async with httpx.AsyncClient(
            base_url=url,
            headers={"x-api-key": cluster.key},
            verify=verify,
            timeout=TIMEOUT_S,
            trust_env=False,
        ) as client:

            async def ask(number: int) -> None:
                end = time.monotonic() + TIMEOUT_S
                path, body = _request(number)
                while True:
                    is_last = not wait or time.monotonic() > end
                    try:
                        answer = await client.post(path, json=body)
                        if is_last or answer.status_code not in _MENDED_BY_WAITING:
                            answer.raise_for_status()
                            return
                    except httpx.TransportError:
                        if is_last:
                            raise
                    await asyncio.sleep(random.uniform(0, _PAUSE_AFTER_FAILURE_S))

            yield ask

    return connect


def _request(number: int) -> tuple[str, dict[str, object]]:
    if number % DETECT_EVERY == 0:
        image = {"encoded": base64.b64encode(picture(number)).decode()}
        return "/v1/objects:detect", {"image": image, "query": {"phrases": {"values": PHRASES}}}
    if number % EMBED_EVERY == 0:
        image = {"encoded": base64.b64encode(picture(number)).decode()}
        return "/v1/images:embed", {"images": [image]}
    return "/v1/texts:embed", {"texts": [f"text {number}"]}


WAYS: dict[str, Way] = {
    "gRPC": grpc(wait=True, tls=False),
    "gRPC, once": grpc(wait=False, tls=True),
    "stream": stream(tls=True),
    "JSON": json(wait=True, tls=False),
    "JSON, once": json(wait=False, tls=True),
}


@dataclass
class Load:
    """Callers that call as long as the context lasts, and what became of their calls."""

    cluster: Cluster
    calls: list[Call] = field(default_factory=list)
    _begun_s: set[float] = field(default_factory=set)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def since(self, start_s: float) -> list[Call]:
        """The calls that have ended since a moment."""
        return [call for call in self.calls if call.end_s >= start_s]

    async def until_ended(self, start_s: float) -> None:
        """Wait for the calls that began before a moment."""

        async def have_ended() -> bool:
            return all(begun_s >= start_s for begun_s in self._begun_s)

        await until(have_ended, TIMEOUT_S + 1)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Inside, all callers call. At the end the last answers are awaited."""
        is_over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for name, way in WAYS.items():
                for _ in range(CALLERS_OF_EACH_WAY):
                    group.create_task(self._caller(name, way, is_over))
            try:
                yield
            finally:
                is_over.set()

    async def _caller(self, name: str, way: Way, is_over: asyncio.Event) -> None:
        while not is_over.is_set():
            async with way(self.cluster) as ask:
                for _ in range(CALLS_OF_A_CONNECTION):
                    self.calls.append(await self._made(name, ask))
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(is_over.wait(), PAUSE_S)
                    if is_over.is_set():
                        break

    async def _made(self, way: str, ask: Ask) -> Call:
        start_s = time.monotonic()
        self._begun_s.add(start_s)
        outcome = "OK"
        try:
            await ask(next(self._numbers))
        except VisiongateError as error:
            outcome = f"{error.code.name}: {error.message}"
        except httpx.HTTPStatusError as error:
            outcome = f"{error.response.status_code}: {error.response.text}"
        except httpx.TransportError as error:
            outcome = f"{type(error).__name__}: {error}"
        self._begun_s.remove(start_s)
        return Call(way, start_s, time.monotonic() - start_s, outcome)

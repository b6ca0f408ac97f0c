"""The documented bound of memory is the real one, whatever fills it."""

import asyncio
import io
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from gateway.embedded import EmbeddedTriton
from soak.service import CACHES, Service, serving
from visiongate import AsyncClient, VisiongateError
from visiongate.operations import segmentation
from visiongate.v1 import segmentation_service_pb2
from wire import changed

MAX_BYTES_IN_FLIGHT = 200_000_000
CACHE_BYTES = sum(CACHES.values())
# What calls hold; half as much for messages on their way in; half as much for work under way.
BOUND_BYTES = 2 * MAX_BYTES_IN_FLIGHT + CACHE_BYTES
CALLERS = 24
SECONDS = 1.5

Ask = Callable[[AsyncClient, int], Awaitable[Any]]


def picture(file_format: str, number: int = 0) -> bytes:
    """A file of 12 megapixels that compresses well; another one for each number."""
    small = np.random.default_rng(number).integers(0, 255, (30, 40, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((4000, 3000), Image.Resampling.NEAREST).save(file, file_format)
    return file.getvalue()


PICTURES = [picture("JPEG", number) for number in range(6)]
PIXELS = np.zeros((3000, 4000, 3), np.uint8)


def numbered(data: bytes, number: int) -> bytes:
    """The same picture for a decoder, and another one for a cache."""
    return data + number.to_bytes(8, "big")


async def files(client: AsyncClient, number: int) -> None:
    await client.detect(numbered(PICTURES[number % 6], number), ["red circle"])


async def raw_pixels(client: AsyncClient, number: int) -> None:
    pixels = PIXELS.copy()
    pixels[0, 0] = [number % 256, number // 256 % 256, 0]
    await client.embed_images([pixels])


async def large_masks(client: AsyncClient, number: int) -> None:
    image = numbered(PICTURES[number % 6], number)
    await client.segment(image, boxes=[[100, 100, 3000, 2500]] * 20, multimask=True)


async def pages(client: AsyncClient, number: int) -> None:
    image = numbered(PICTURES[number % 6], number)
    await client.recognize_text([image], min_pixel_score=0.9)


async def lists(client: AsyncClient, number: int) -> None:
    await client.embed_images([numbered(PICTURES[place % 6], 100 * number + place) for place in range(12)])


async def left_early(client: AsyncClient, number: int) -> None:
    """Callers with a deadline that their work outlives."""
    await asyncio.wait_for(large_masks(client, number), 0.3)


@pytest.fixture(scope="module")
def service(demo_triton: EmbeddedTriton) -> Iterator[Service]:
    limit = ("--max-bytes-in-flight", str(MAX_BYTES_IN_FLIGHT), "--max-send-s", "1")
    with serving(demo_triton.grpc_address, *limit) as running:
        yield running


@pytest.fixture(scope="module")
async def idle_mb(service: Service) -> float:
    """Memory of a gateway that has done each kind of work once, on a small image."""
    small = PIXELS[:100, :100]
    async with AsyncClient(service.address, timeout=60) as client:
        await client.segment_phrases(small, ["red circle"])
        await client.embed_images([small])
        await client.recognize_text([small])
    return service.resident_mb


class Watch:
    """The most memory that the gateway has had inside, above what it has when it is idle."""

    def __init__(self, service: Service, idle_mb: float) -> None:
        self._service = service
        self._end = threading.Event()
        self._idle_mb = idle_mb
        self._most_mb = 0.0
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(0.005):
            self._most_mb = max(self._most_mb, self._service.resident_mb)

    @property
    def grown_bytes(self) -> float:
        return (self._most_mb - self._idle_mb) * (1 << 20)


@pytest.mark.parametrize(
    "ask", [files, raw_pixels, pytest.param(large_masks, marks=pytest.mark.long), pages, lists, left_early]
)
async def test_calls_of_a_kind(service: Service, idle_mb: float, ask: Ask) -> None:
    codes: Counter[str] = Counter()
    async with AsyncClient(service.address, timeout=120, wait=False) as client:
        end = time.monotonic() + SECONDS

        async def caller(number: int) -> None:
            while time.monotonic() < end:
                number += CALLERS
                try:
                    await ask(client, number)
                    codes["OK"] += 1
                except VisiongateError as error:
                    codes[error.code.name] += 1
                    await asyncio.sleep(0.05)
                except TimeoutError:
                    codes["left"] += 1

        with Watch(service, idle_mb) as watch:
            await asyncio.gather(*map(caller, range(CALLERS)))
    print(ask.__name__, f"{watch.grown_bytes / 1e6:.0f} MB of {BOUND_BYTES / 1e6:.0f}", dict(codes))
    assert watch.grown_bytes <= 1.3 * BOUND_BYTES
    assert set(codes) <= {"OK", "RESOURCE_EXHAUSTED", "left"}
    assert codes["left" if ask is left_early else "OK"]
    await released(service)


async def test_answers_that_nobody_takes(service: Service, idle_mb: float) -> None:
    operation = segmentation.segment(picture("PNG"), boxes=[[100, 100, 3000, 2500]] * 20)
    bitmaps = changed(operation, {"mask_format": segmentation_service_pb2.MASK_FORMAT_BITMAP})
    request = bitmaps.request.SerializeToString()
    codes: Counter[str] = Counter()
    with Watch(service, idle_mb) as watch:
        channels = [grpc.aio.insecure_channel(service.address, [("n", number)]) for number in range(10)]
        calls = []
        for channel in channels:
            call: Any = channel.stream_stream(operation.method)()
            await call.write(request)
            await call.done_writing()
            calls.append(call)
        for call in calls:
            codes[(await call.code()).name] += 1
        for channel in channels:
            await channel.close()
    print("unread", f"{watch.grown_bytes / 1e6:.0f} MB of {BOUND_BYTES / 1e6:.0f}", dict(codes))
    assert watch.grown_bytes <= 1.3 * BOUND_BYTES
    assert set(codes) <= {"UNAVAILABLE", "RESOURCE_EXHAUSTED"}
    await released(service)


async def released(service: Service) -> None:
    """Wait until nothing is counted any more."""
    async with asyncio.timeout(60):
        while True:
            metrics = service.metrics()
            if not metrics["visiongate_bytes_in_flight"] and not metrics["visiongate_calls_in_flight"]:
                return
            await asyncio.sleep(0.1)

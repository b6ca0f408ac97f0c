"""What every task shares: Triton, worker threads, images, and what a call measures of itself.

Cancelling a call is how deadlines and callers that hang up reach everything below: the awaited Triton
request is cancelled with it, and no later stage starts.
"""

import asyncio
import hashlib
import itertools
import math
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from gateway import metrics
from gateway.admission import release, reserve_more
from gateway.allowed_hosts import AllowedHosts
from gateway.cache import ComputingCache
from gateway.catalog import Catalog
from gateway.errors import ImageNotCachedError, ImageNotFetchedError, InvalidArgumentError
from gateway.fetch import Fetcher, FetchError, UriError
from gateway.memory import Memory
from gateway.models import image as images
from gateway.observation import observe_stage
from gateway.settings import Settings
from gateway.triton import Triton

Item = TypeVar("Item")
Result = TypeVar("Result")
# Items of a thread's share: what is begun of it is not dropped with its caller.
MAX_AT_ONCE = 8
Stage = Literal["decode", "preprocess", "inference", "postprocess"]
STAGES: tuple[Stage, ...] = ("decode", "preprocess", "inference", "postprocess")


@dataclass(slots=True)
class Call:
    """What a call measures of itself: seconds by stage. Work shared with other calls counts for one."""

    seconds: dict[Stage, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        start = time.perf_counter()
        try:
            with observe_stage(stage):
                yield
        finally:
            self.seconds[stage] += time.perf_counter() - start


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image file."""

    kind: ClassVar[str] = "encoded"
    data: bytes


@dataclass(frozen=True, slots=True)
class RawImage:
    """RGB bytes, row by row."""

    kind: ClassVar[str] = "raw"
    data: bytes
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class CachedImage:
    """An image that an earlier call brought."""

    kind: ClassVar[str] = "image_id"
    image_id: str


@dataclass(frozen=True, slots=True)
class UriImage:
    """An image file that the server fetches."""

    kind: ClassVar[str] = "uri"
    uri: str


ImageSource = EncodedImage | RawImage | CachedImage | UriImage


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """RGB uint8 [H, W, 3] in the orientation in which it is meant to be seen, and its content hash."""

    image_id: str
    pixels: NDArray[np.uint8]

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width


class Core:
    """One instance a process, used from one event loop."""

    def __init__(self, triton: Triton, catalog: Catalog, settings: Settings) -> None:
        self.triton = triton
        self.catalog = catalog
        self.settings = settings
        self._workers = ThreadPoolExecutor(settings.threads, thread_name_prefix="worker")
        # Beside what calls hold, as it is not known before.
        self._decoding = Memory(settings.max_bytes_in_flight)
        self._images = ComputingCache[LoadedImage](
            "image", settings.image_cache_bytes, lambda image: image.pixels.nbytes
        )
        self._fetcher = Fetcher(
            AllowedHosts(settings.uri_hosts),
            max_bytes=settings.max_image_bytes,
            timeout_s=settings.uri_timeout_s,
            max_redirects=settings.uri_max_redirects,
        )
        # A small request brings a large file: all that are held at once take no more than requests may.
        self._fetches = asyncio.Semaphore(max(1, settings.max_bytes_in_flight // settings.max_image_bytes))

    def close(self) -> None:
        self._workers.shutdown(wait=False, cancel_futures=True)

    async def load_image(self, source: ImageSource, call: Call, field: str = "image") -> LoadedImage:
        """Decodes an image, or finds it in the cache. `field` is the request's, for what is wrong with it."""
        metrics.IMAGES.labels(source.kind).inc()
        with call.stage("decode"):
            image = await self._loaded(source, field)
            reserve_more(image.pixels.nbytes)
            return image

    def let_go(self, image: LoadedImage) -> None:
        """Of an image that the call does not hold any more."""
        release(image.pixels.nbytes)

    async def _loaded(self, source: ImageSource, field: str) -> LoadedImage:
        match source:
            case CachedImage():
                image = self._images.get(source.image_id)
                if image is None:
                    raise ImageNotCachedError(source.image_id, field)
                return image
            case EncodedImage():
                return await self._decoded(source, f"{field}.encoded")
            case RawImage():
                return await self._decoded(source, f"{field}.raw")
            case UriImage():
                async with self._fetches:
                    return await self._decoded(await self._fetched(source, f"{field}.uri"), f"{field}.uri")

    async def _fetched(self, source: UriImage, field: str) -> EncodedImage:
        try:
            return EncodedImage(await self._fetcher.fetch(source.uri))
        except UriError as error:
            raise InvalidArgumentError(field, str(error)) from error
        except FetchError as error:
            raise ImageNotFetchedError(field, str(error)) from error

    async def _decoded(self, source: EncodedImage | RawImage, field: str) -> LoadedImage:
        image_id = await self.run(_content_hash, source)
        try:
            return await self._images.get_or_compute(
                image_id, lambda: self.run(self._decode, source, image_id)
            )
        except images.ImageError as error:
            raise InvalidArgumentError(field, str(error)) from error

    def _decode(self, source: EncodedImage | RawImage, image_id: str) -> LoadedImage:
        limit = self.settings.max_image_pixels
        if isinstance(source, RawImage):
            pixels = images.from_raw(source.data, source.width, source.height, max_pixels=limit)
        else:
            pixels = images.decode(source.data, max_pixels=limit, room=self._decoding.reserve)
        return LoadedImage(image_id, pixels)

    async def run(self, function: Callable[..., Result], *arguments: Any, **keywords: Any) -> Result:
        """Runs CPU work in a worker thread; work that has not started is dropped with its caller."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._workers, lambda: function(*arguments, **keywords))

    async def run_each(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Runs CPU work on each item in worker threads; results in order.

        A few at a time: to hand work to a thread and back costs as much as to write a small mask.
        """

        def work(share: Sequence[Item]) -> list[Result]:
            return [function(item) for item in share]

        size = min(MAX_AT_ONCE, math.ceil(len(items) / self.settings.threads))
        shares = [items[start : start + size] for start in range(0, len(items), size or 1)]
        return [*itertools.chain.from_iterable(await gather(self.run(work, share) for share in shares))]


async def gather(work: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Results in order; the first failure cancels the rest, waits for them, and is raised as it is.

    Not a TaskGroup: that leaves failures in cycles with the tasks, which keep what the work held (images,
    tensors) until Python looks for cycles.
    """
    tasks = [asyncio.create_task(item) for item in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        left = [task for task in tasks if not task.done()]
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)
        del tasks, left


def _content_hash(source: EncodedImage | RawImage) -> str:
    digest = hashlib.sha256(source.data)
    if isinstance(source, RawImage):
        # The same bytes are another image at another width, and as a file.
        digest.update(f"rgb {source.width}x{source.height}".encode())
    return digest.hexdigest()

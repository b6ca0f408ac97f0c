"""What every task shares: Triton, worker threads, images, and what a call measures of itself.

Cancelling a call is how deadlines and callers that hang up reach everything below: the awaited Triton
request is cancelled with it, and no later stage starts.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from gateway.cache import ComputingCache
from gateway.catalog import Catalog
from gateway.errors import ImageNotCachedError, InvalidArgumentError
from gateway.models import image as images
from gateway.settings import Settings
from gateway.triton import Triton

Result = TypeVar("Result")
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
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - start


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image file."""

    data: bytes


@dataclass(frozen=True, slots=True)
class RawImage:
    """RGB bytes, row by row."""

    data: bytes
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class CachedImage:
    """An image that an earlier call brought."""

    image_id: str


ImageSource = EncodedImage | RawImage | CachedImage


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
        self._workers = ThreadPoolExecutor(settings.worker_threads, thread_name_prefix="worker")
        self._images = ComputingCache[LoadedImage](
            settings.image_cache_bytes, lambda image: image.pixels.nbytes
        )

    def close(self) -> None:
        self._workers.shutdown(wait=False, cancel_futures=True)

    async def load_image(self, source: ImageSource, call: Call, field: str = "image") -> LoadedImage:
        """Decodes an image, or finds it in the cache. `field` is the request's, for what is wrong with it."""
        with call.stage("decode"):
            if isinstance(source, CachedImage):
                image = self._images.get(source.image_id)
                if image is None:
                    raise ImageNotCachedError(source.image_id, field)
                return image
            image_id = await self.run(_content_hash, source)
            try:
                return await self._images.get_or_compute(
                    image_id, lambda: self.run(_decode, source, image_id, self.settings.max_image_pixels)
                )
            except images.ImageError as error:
                kind = "raw" if isinstance(source, RawImage) else "encoded"
                raise InvalidArgumentError(f"{field}.{kind}", str(error)) from error

    async def run(self, function: Callable[..., Result], *arguments: Any, **keywords: Any) -> Result:
        """Runs CPU work in a worker thread; work that has not started is dropped with its caller."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._workers, lambda: function(*arguments, **keywords))


async def gather(work: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Results in order; the first failure cancels the rest and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(item) for item in work]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


def _content_hash(source: EncodedImage | RawImage) -> str:
    digest = hashlib.sha256(source.data)
    if isinstance(source, RawImage):
        # The same bytes are another image at another width, and as a file.
        digest.update(f"rgb {source.width}x{source.height}".encode())
    return digest.hexdigest()


def _decode(source: EncodedImage | RawImage, image_id: str, max_pixels: int) -> LoadedImage:
    if isinstance(source, RawImage):
        pixels = images.from_raw(source.data, source.width, source.height, max_pixels=max_pixels)
    else:
        pixels = images.decode(source.data, max_pixels=max_pixels)
    return LoadedImage(image_id, pixels)

"""The images of requests: where they come from, and how they become pixels."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gateway import metrics
from gateway.admission import release, reserve
from gateway.allowed_hosts import AllowedHosts
from gateway.cache import ComputingCache, Keep
from gateway.call import current, stage
from gateway.errors import ImageNotCachedError, ImageNotFetchedError, InputError
from gateway.fetch import Fetcher, FetchError, UriError
from gateway.image_ids import ImageIds
from gateway.memory import Memory
from gateway.models import image
from gateway.models.raw_image import PixelOrder, from_raw
from gateway.pipelines.threads import Threads
from gateway.settings import Settings


class ImageSource:
    """Where an image comes from. `kind` is its name in the metrics."""

    __slots__ = ()
    kind: ClassVar[str]


@dataclass(frozen=True, slots=True)
class EncodedImage(ImageSource):
    """An image file."""

    kind = "encoded"
    data: bytes


@dataclass(frozen=True, slots=True)
class RawImage(ImageSource):
    """Pixels, row by row, in the order that `order` says."""

    kind = "raw"
    data: bytes
    width: int
    height: int
    order: PixelOrder = PixelOrder.RGB


@dataclass(frozen=True, slots=True)
class CachedImage(ImageSource):
    """An image that an earlier call of the same caller brought."""

    kind = "image_id"
    image_id: str


@dataclass(frozen=True, slots=True)
class UriImage(ImageSource):
    """An image file that the server fetches."""

    kind = "uri"
    uri: str


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What stays of an image that was read: its names, and its size in pixels.

    image_id: the caller's name for it. content_hash: the server's, by which callers share what is kept.
    """

    image_id: str
    content_hash: str
    width: int
    height: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """RGB uint8 [H, W, 3] in the orientation in which it is meant to be seen, and its names."""

    image_id: str
    content_hash: str
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

    @property
    def info(self) -> ImageInfo:
        return ImageInfo(self.image_id, self.content_hash, self.width, self.height)


class ImageLoader:
    """Turns sources into pixels. One instance a process: it keeps decoded images."""

    def __init__(self, settings: Settings, threads: Threads, room: Memory, image_ids: ImageIds) -> None:
        self._max_pixels = settings.max_image_pixels
        self._threads = threads
        self._room = room
        self._image_ids = image_ids
        self._cache = ComputingCache[NDArray[np.uint8]](
            "image", settings.image_cache_bytes, lambda pixels: pixels.nbytes
        )
        self._fetcher = Fetcher(
            AllowedHosts(settings.uri_hosts),
            max_bytes=settings.max_image_bytes,
            timeout_s=settings.uri_timeout_s,
            max_redirects=settings.uri_max_redirects,
        )
        self._max_file_bytes = settings.max_image_bytes

    async def load(self, source: ImageSource, *, keep: Keep = Keep.NORMAL) -> LoadedImage:
        """Return the image, decoded now or found in the cache; the current call's bytes grow by its pixels.

        `keep` is for images that are sent: those that an id names are used again, and kept for that. Raises
        InputError if the image cannot be used.
        """
        metrics.IMAGES.labels(source.kind).inc()
        with stage("decode"):
            content_hash, pixels = await self._load(source, keep)
            return LoadedImage(self._image_ids.make(content_hash, _caller()), content_hash, pixels)

    def release(self, loaded: LoadedImage) -> None:
        """Say that the current call does not hold the image any more."""
        release(loaded.pixels.nbytes)

    def content_hash(self, source: CachedImage) -> str:
        """Return the content hash that an id names; raise ImageNotCachedError if it is not the caller's."""
        content_hash = self._image_ids.content_hash(source.image_id, _caller())
        if content_hash is None:
            raise ImageNotCachedError(source.image_id)
        return content_hash

    async def _load(self, source: ImageSource, keep: Keep) -> tuple[str, NDArray[np.uint8]]:
        """Return the content hash and the pixels."""
        match source:
            case CachedImage():
                content_hash = self.content_hash(source)
                pixels = self._cache.get(content_hash)
                if pixels is None:
                    raise ImageNotCachedError(source.image_id)
                await reserve(pixels.nbytes)
                return content_hash, pixels
            case UriImage():
                # A small request brings a large file.
                await reserve(self._max_file_bytes)
                try:
                    return await self._load_bytes(await self._fetch(source), keep)
                finally:
                    release(self._max_file_bytes)
            case EncodedImage() | RawImage():
                return await self._load_bytes(source, keep)
            case _:
                raise TypeError(f"{type(source).__name__} is not a known source of images")

    async def _fetch(self, source: UriImage) -> EncodedImage:
        try:
            return EncodedImage(await self._fetcher.fetch(source.uri))
        except UriError as error:
            raise InputError(str(error)) from error
        except FetchError as error:
            raise ImageNotFetchedError(str(error)) from error

    async def _load_bytes(self, source: EncodedImage | RawImage, keep: Keep) -> tuple[str, NDArray[np.uint8]]:
        content_hash = await self._threads.run(_content_hash, source)
        is_decoded_here = False

        async def decode() -> NDArray[np.uint8]:
            nonlocal is_decoded_here
            is_decoded_here = True
            return await self._decode(source)

        try:
            pixels = await self._cache.get_or_compute(content_hash, decode, keep=keep)
        except image.ImageError as error:
            raise InputError(str(error)) from error
        if not is_decoded_here:
            await reserve(pixels.nbytes)
        return content_hash, pixels

    async def _decode(self, source: EncodedImage | RawImage) -> NDArray[np.uint8]:
        """Return the pixels, which are counted for the current call before there are any."""
        run = self._threads.run
        if isinstance(source, RawImage):
            size = len(source.data) * (3 if source.order is PixelOrder.GRAY else 1)
            arguments = source.data, source.width, source.height, source.order
            async with _reserved(size):
                return await run(from_raw, *arguments, max_pixels=self._max_pixels)
        # Only the header says how much memory decoding takes. No thread waits for that.
        file = await run(image.open_image, source.data, max_pixels=self._max_pixels)
        async with _reserved(file.pixel_bytes), self._room.reserve(file.peak_bytes):
            return await run(file.decode)


@asynccontextmanager
async def _reserved(size: int) -> AsyncIterator[None]:
    """Reserve bytes for the current call, and release them if what they are for fails."""
    await reserve(size)
    try:
        yield
    except BaseException:
        release(size)
        raise


def _caller() -> str:
    call = current()
    return call.caller if call else ""


def _content_hash(source: EncodedImage | RawImage) -> str:
    digest = hashlib.sha256(source.data)
    if isinstance(source, RawImage):
        # The same bytes are another image at another width, in another order, and as a file.
        digest.update(f"{source.order.value} {source.width}x{source.height}".encode())
    return digest.hexdigest()

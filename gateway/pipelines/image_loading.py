"""The loading of images: their sources become pixels, or a model's input."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from gateway import metrics, tracing
from gateway.admission import release, reserve
from gateway.allowed_hosts import AllowedHosts
from gateway.cache import ComputingCache, Keep
from gateway.call import current, note_stage, stage
from gateway.errors import ImageNotCachedError, ImageNotFetchedError, InputError
from gateway.fetch import Fetcher, FetchError, UriError
from gateway.image_ids import ImageIds
from gateway.memory import Memory
from gateway.models import image
from gateway.models.image import ImageFile
from gateway.models.image_claims import claimed_size
from gateway.models.raw_image import PixelOrder, from_raw
from gateway.pipelines import model_inputs
from gateway.pipelines.images import (
    CachedImage,
    EncodedImage,
    ImageInfo,
    ImageSource,
    LoadedImage,
    RawImage,
    UriImage,
    content_hash_of,
)
from gateway.pipelines.model_inputs import Input, Made, Recipe
from gateway.pipelines.threads import Threads
from gateway.settings import Settings

# What Pillow has while it resizes: 4 bytes a pixel of RGB, and the array's 3 before.
_RESIZING_BYTES_PER_PIXEL = 7
# So much is hashed in a tenth of a millisecond, which is what handing it to a thread and back costs.
_SMALL_FILE_BYTES = 128 << 10
# Sizes of images that are known by their hash; each takes 200 bytes or so.
_MAX_SIZES = 16_384
_FILE = "file/"


class ImageLoader:
    """Turns sources into pixels. One instance a process: it keeps decoded images.

    Of images that are decoded for one model's input alone, it keeps the files instead: they are smaller.
    """

    def __init__(self, settings: Settings, threads: Threads, room: Memory, image_ids: ImageIds) -> None:
        self._max_pixels = settings.max_image_pixels
        self._threads = threads
        self._room = room
        self._image_ids = image_ids
        self._scales = settings.scaled_decoding
        # Pixels by content hash, and files by content hash behind _FILE.
        self._cache = ComputingCache[NDArray[np.uint8] | bytes](
            "image",
            settings.image_cache_bytes,
            lambda kept: len(kept) if isinstance(kept, bytes) else kept.nbytes,
        )
        # Keeps nothing: calls that need the same input at the same time share the work.
        self._inputs = ComputingCache[Made[Any]](None, 0, lambda made: 1)
        self._sizes: LRUCache[str, tuple[int, int]] = LRUCache(_MAX_SIZES)
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

    async def prepare(
        self, source: ImageSource, recipe: Recipe[Input], is_known: Callable[[str], bool]
    ) -> "tuple[ImageInfo, Input | None]":
        """Return what stays of an image, and a model's input, in one go.

        There is no input if `is_known`, which is asked about the content hash, says that none is needed.
        Raises InputError if the image cannot be used.
        """
        metrics.IMAGES.labels(source.kind).inc()
        start, made = time.perf_counter(), None
        try:
            content_hash, made = await self._prepare(source, recipe, is_known)
        finally:
            seconds = time.perf_counter() - start
            if made is not None and made.seconds:
                note_stage("preprocess", made.seconds)
                tracing.note_stage("preprocess", made.end_ns, made.seconds)
                seconds -= made.seconds
            note_stage("decode", seconds)
            tracing.note_stage("decode", time.time_ns(), seconds)
        width, height = made.size
        return ImageInfo(
            self._image_ids.make(content_hash, _caller()), content_hash, width, height
        ), made.input

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
                content_hash, kept = self._kept(source)
                if isinstance(kept, bytes):
                    return await self._load_bytes(EncodedImage(kept), Keep.NORMAL, content_hash)
                await reserve(kept.nbytes)
                return content_hash, kept
            case UriImage():
                async with self._fetched(source) as file:
                    return await self._load_bytes(EncodedImage(file), keep)
            case EncodedImage() | RawImage():
                return await self._load_bytes(source, keep)
            case _:
                raise TypeError(f"{type(source).__name__} is not a known source of images")

    @asynccontextmanager
    async def _fetched(self, source: UriImage) -> AsyncIterator[bytes]:
        """Fetch a file, and count as many bytes as it might have: a small request brings a large file."""
        await reserve(self._max_file_bytes)
        try:
            yield await self._fetch(source.uri)
        finally:
            release(self._max_file_bytes)

    async def _fetch(self, uri: str) -> bytes:
        try:
            return await self._fetcher.fetch(uri)
        except UriError as error:
            raise InputError(str(error)) from error
        except FetchError as error:
            raise ImageNotFetchedError(str(error)) from error

    def _kept(self, source: CachedImage) -> tuple[str, NDArray[np.uint8] | bytes]:
        """Return the content hash that an id names, and the pixels or the file."""
        content_hash = self.content_hash(source)
        kept = self._cache.get(content_hash, count_miss=False)
        if kept is None:
            kept = self._cache.get(_FILE + content_hash)
        if kept is None:
            raise ImageNotCachedError(source.image_id)
        return content_hash, kept

    async def _load_bytes(
        self, source: EncodedImage | RawImage, keep: Keep, content_hash: str = ""
    ) -> tuple[str, NDArray[np.uint8]]:
        content_hash = content_hash or await self._hash(source)
        is_decoded_here = False

        async def decode() -> NDArray[np.uint8]:
            nonlocal is_decoded_here
            is_decoded_here = True
            return await self._decode(source)

        try:
            pixels = await self._cache.get_or_compute(content_hash, decode, keep=keep)
        except image.ImageError as error:
            raise InputError(str(error)) from error
        assert not isinstance(pixels, bytes)
        if is_decoded_here:
            self._cache.drop(_FILE + content_hash)
        else:
            await reserve(pixels.nbytes)
        return content_hash, pixels

    async def _hash(self, source: EncodedImage | RawImage) -> str:
        if len(source.data) <= _SMALL_FILE_BYTES:
            return content_hash_of(source)
        return await self._threads.run(content_hash_of, source)

    async def _prepare(
        self, source: ImageSource, recipe: Recipe[Input], is_known: Callable[[str], bool]
    ) -> tuple[str, Made[Any]]:
        """Return the content hash and what was made of the image."""
        match source:
            case EncodedImage():
                return await self._prepare_file(source.data, recipe, is_known, Keep.IF_ROOM)
            case CachedImage():
                content_hash, kept = self._kept(source)
                if isinstance(kept, bytes):
                    return await self._prepare_file(kept, recipe, is_known, Keep.NORMAL)
                await reserve(kept.nbytes)
                return content_hash, await self._prepare_pixels(content_hash, kept, recipe, is_known)
            case UriImage():
                async with self._fetched(source) as file:
                    return await self._prepare_file(file, recipe, is_known, Keep.IF_ROOM)
        content_hash, pixels = await self._load(source, Keep.IF_ROOM)
        return content_hash, await self._prepare_pixels(content_hash, pixels, recipe, is_known)

    async def _prepare_pixels(
        self,
        content_hash: str,
        pixels: NDArray[np.uint8],
        recipe: Recipe[Input],
        is_known: Callable[[str], bool],
    ) -> Made[Any]:
        """Make a model's input of pixels that the current call has reserved, and release them."""
        height, width = pixels.shape[:2]
        try:
            if is_known(content_hash):
                return Made(None, (width, height), 0, 0)
            async with self._room.reserve(_RESIZING_BYTES_PER_PIXEL * width * height):
                return await self._threads.run(model_inputs.make_of_pixels, pixels, recipe)
        finally:
            release(pixels.nbytes)

    async def _prepare_file(
        self, data: bytes, recipe: Recipe[Input], is_known: Callable[[str], bool], keep: Keep
    ) -> tuple[str, Made[Any]]:
        content_hash = await self._hash(EncodedImage(data))
        size = self._sizes.get(content_hash)
        made: Made[Any]
        if size is not None and is_known(content_hash):
            made = Made(None, size, 0, 0)
        elif (pixels := self._cache.get(content_hash, keep=keep)) is not None:
            assert not isinstance(pixels, bytes)
            await reserve(pixels.nbytes)
            return content_hash, await self._prepare_pixels(content_hash, pixels, recipe, is_known)
        else:
            try:
                made = await self._inputs.get_or_compute(
                    f"{recipe.name}/{content_hash}", lambda: self._make(data, recipe), keep=Keep.NEVER
                )
            except image.ImageError as error:
                raise InputError(str(error)) from error
            self._sizes[content_hash] = made.size
        self._cache.put(_FILE + content_hash, data, keep)
        return content_hash, made

    async def _make(self, data: bytes, recipe: Recipe[Input]) -> Made[Input]:
        """Decode a file and make a model's input of it.

        That is one hand-off to a thread, if the file's first bytes tell how much memory it takes. If they
        do not, or have told too little, the memory is waited for between two hand-offs.
        """
        run, min_side = self._threads.run, recipe.min_side if self._scales else None
        claim = claimed_size(data)
        file: ImageFile | None = None
        if claim is not None and claim[0] * claim[1] <= self._max_pixels:
            peak_bytes = image.peak_bytes(data, *claim, min_side)
            async with self._room.reserve(peak_bytes):
                made = await run(model_inputs.make, data, recipe, min_side, self._max_pixels, peak_bytes)
            if isinstance(made, Made):
                return made
            file = made
        else:
            file = await run(image.open_image, data, max_pixels=self._max_pixels)
        async with self._room.reserve(file.peak_bytes_at(min_side)):
            return await run(model_inputs.make_of_file, file, recipe, min_side)

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

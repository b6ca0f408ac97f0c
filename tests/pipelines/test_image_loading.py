"""Loading images: whose ids are good, and what is kept for whom."""

from collections.abc import Iterator

import numpy as np
import pytest

from gateway.cache import Keep
from gateway.call import observe
from gateway.errors import ImageNotCachedError
from gateway.image_ids import ImageIds
from gateway.memory import Memory
from gateway.pipelines.image_loading import ImageLoader
from gateway.pipelines.images import CachedImage, LoadedImage, RawImage
from gateway.pipelines.threads import Threads
from gateway.settings import Settings

IMAGE_BYTES = 3 * 10 * 10
IDS = ImageIds(bytes(32))


@pytest.fixture
def threads() -> Iterator[Threads]:
    made = Threads(1)
    yield made
    made.close()


def loader(threads: Threads, images: int = 3) -> ImageLoader:
    """A loader that keeps so many of the images that `raw` makes."""
    return ImageLoader(Settings(image_cache_bytes=images * IMAGE_BYTES), threads, Memory(1 << 20), IDS)


def raw(value: int) -> RawImage:
    return RawImage(bytes([value]) * IMAGE_BYTES, 10, 10)


async def load_as(caller: str, images: ImageLoader, source: RawImage | CachedImage) -> LoadedImage:
    with observe("/test", {}) as call:
        call.caller = caller
        return await images.load(source)


async def test_callers_share_pixels_and_not_ids(threads: Threads) -> None:
    images = loader(threads)
    of_a, of_b = [await load_as(caller, images, raw(1)) for caller in "ab"]
    assert of_a.pixels is of_b.pixels
    assert of_a.content_hash == of_b.content_hash
    assert of_a.image_id != of_b.image_id
    again = await load_as("a", images, CachedImage(of_a.image_id))
    assert (again.image_id, again.info) == (of_a.image_id, of_a.info)
    assert again.pixels is of_a.pixels


async def test_no_refusal_of_an_id_says_why(threads: Threads) -> None:
    images = loader(threads)
    of_a = await load_as("a", images, raw(1))
    never_sent = IDS.make("0" * 64, "b")
    for image_id in (of_a.image_id, of_a.content_hash, "", never_sent):
        with pytest.raises(ImageNotCachedError) as caught:
            await load_as("b", images, CachedImage(image_id))
        error = caught.value.to_status_error("image.image_id")
        assert error.message == "image.image_id: the image is not in the server's cache: send it again"


async def kept(images: ImageLoader, loaded: list[LoadedImage]) -> list[int]:
    """The first pixel's value of each image that is kept."""
    found = []
    for image in loaded:
        try:
            found.append((await images.load(CachedImage(image.image_id))).pixels)
        except ImageNotCachedError:
            continue
    return [int(pixels.flat[0]) for pixels in found]


async def test_images_of_lists_do_not_push_out_others(threads: Threads) -> None:
    images = loader(threads)
    clicked = [await images.load(raw(value)) for value in (1, 2)]
    bulk = [await images.load(raw(value), keep=Keep.IF_ROOM) for value in (3, 4, 5)]
    assert await kept(images, clicked + bulk) == [1, 2, 5]
    # Named by its id, the last one is now like any other: 1 is the longest unused.
    more = [await images.load(raw(6), keep=Keep.IF_ROOM), await images.load(raw(7))]
    assert await kept(images, clicked + bulk + more) == [2, 5, 7]


async def test_the_content_hash_tells_pixels_apart_and_nothing_else(threads: Threads) -> None:
    images = loader(threads)
    wide = RawImage(bytes(range(60)), 5, 4)
    tall = RawImage(bytes(range(60)), 4, 5)
    first, again, other = [await images.load(source) for source in (wide, wide, tall)]
    assert first.content_hash == again.content_hash != other.content_hash
    assert first.info.size == first.size == (4, 5)
    np.testing.assert_array_equal(other.pixels.ravel(), np.arange(60))

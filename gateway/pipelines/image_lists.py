"""The images of a list: a few at a time, each with a result or an error of its own."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from gateway.cache import Keep
from gateway.errors import InputError
from gateway.pipelines.images import ImageInfo, ImageSource
from gateway.pipelines.items import work_on_each
from gateway.pipelines.resources import Resources
from gateway.reservations import one_item

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Found(Generic[Item]):
    """What was found in an image, and the image as it was read."""

    image: ImageInfo
    items: list[Item]


async def work_on_images(
    resources: Resources,
    work: Callable[[ImageSource, Keep], Awaitable[Found[Item]]],
    sources: Sequence[ImageSource | InputError],
    *,
    strict: bool,
) -> list[Found[Item] | InputError]:
    """Work on each image as `work_on_each` says, and on `images_in_flight` of them at a time.

    What the work reserves is released with its image. It gets how to keep the image: people come back to one
    that comes alone, and lists must not push such images out of the cache.
    """
    slots = asyncio.Semaphore(resources.settings.images_in_flight)
    keep = Keep.NORMAL if len(sources) == 1 else Keep.IF_ROOM

    async def work_on(source: ImageSource) -> Found[Item]:
        async with slots:
            with one_item():
                return await work(source, keep)

    return await work_on_each(work_on, sources, strict=strict)

"""Lists that are too large for one request."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from google.protobuf.message import Message

Item = TypeVar("Item", bound=Message | str)
Request = TypeVar("Request", bound=Message)

# What a server takes by default, less some room: its message limit is 64 MiB.
MAX_BYTES = 60 << 20
MAX_IMAGES = 64
MAX_TEXTS = 1024
MAX_PAGES = 32


def requests(
    make: Callable[[Sequence[Item]], Request], items: Iterable[Item], share: Callable[[Item], float]
) -> tuple[Request, tuple[Request, ...]]:
    """The first request about the items, and those about further ones that it has no room for.

    `make` makes a request about some of them. `share` says how much of the number of items that the server
    takes in a request is used up by one: 1 / 64 for an image.
    """
    room = MAX_BYTES - make(()).ByteSize()
    parts: list[list[Item]] = [[]]
    size, used = 0, 0.0
    for item in items:
        item_size, item_share = _size(item), share(item)
        if parts[-1] and (size + item_size > room or used + item_share > 1):
            parts.append([])
            size, used = 0, 0.0
        parts[-1].append(item)
        size, used = size + item_size, used + item_share
    first, *more = map(make, parts)
    return first, tuple(more)


def _size(item: Any) -> int:
    # Beside it stand its field's number and its length.
    return 10 + (len(item.encode()) if isinstance(item, str) else item.ByteSize())

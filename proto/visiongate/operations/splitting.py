"""Lists that are too large for one request."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from google.protobuf.message import Message

Item = TypeVar("Item", bound=Message | str)
Request = TypeVar("Request", bound=Message)

# The server's default limits. A message has 36 MiB at most, 512 KiB of them beside images. These leave room.
MAX_BYTES = 35 << 20
MAX_TEXT_BYTES = 400 << 10
MAX_IMAGES = 64
MAX_TEXTS = 1024
MAX_PAGES = 32
MAX_GRID_POINTS = 25_000


def requests(
    make: Callable[[Sequence[Item]], Request], items: Iterable[Item], share: Callable[[Item], float]
) -> tuple[Request, tuple[Request, ...]]:
    """Return the first request about the items, and further ones for the items that it has no room for.

    `make` makes a request about some of the items. `share` is the part of a request's limit of items that an
    item takes up: 1 / 64 for an image.
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


def share_of_text(text: str) -> float:
    """Return the part of a request's limits that a text takes up."""
    return max(1 / MAX_TEXTS, len(text.encode()) / MAX_TEXT_BYTES)


def _size(item: Any) -> int:
    # An item is preceded by its field's number and its length.
    return 10 + (len(item.encode()) if isinstance(item, str) else item.ByteSize())

"""What the answers to lists of images have in common."""

from collections.abc import Sequence
from typing import Any

from gateway.errors import InputError
from gateway.pipelines.image_lists import Found

# A call counts as one for each so many.
IMAGES_OF_A_PLACE = 4


def found_count(items: Sequence[Found[Any] | InputError]) -> int:
    """Return how many results and things found there are, for `Threads.run_if_large`."""
    return len(items) + sum(len(item.items) for item in items if not isinstance(item, InputError))

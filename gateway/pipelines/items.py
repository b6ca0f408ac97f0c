"""The items of a list, some of which may be unusable."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from gateway.concurrency import gather
from gateway.errors import InputError, ListTooLargeError, forget_frames

Item = TypeVar("Item")
Result = TypeVar("Result")


def attempt(work: Callable[[Item], Result], item: Item) -> Result | InputError:
    """Return what the work makes of an item, or the InputError that it raises."""
    try:
        return work(item)
    except InputError as error:
        forget_frames(error)
        return error


def usable(items: Sequence[Result | InputError]) -> list[Result]:
    """Return the results of strict work, among which there are no errors."""
    return [item for item in items if not isinstance(item, InputError)]


def refuse_errors(items: Sequence[object]) -> None:
    """Raise the first item that is an InputError, with its index."""
    for index, item in enumerate(items):
        if isinstance(item, InputError):
            item.index = index
            raise item


async def work_on_each(
    work: Callable[[Item], Awaitable[Result]], items: Sequence[Item | InputError], *, strict: bool
) -> list[Result | InputError]:
    """Work on the items side by side. Return a result for each item, or its error.

    An item that is an error already stays one. If `strict`, the first error ends all the work, and is raised
    with its index. ListTooLargeError always does, as it is no item's own.
    """
    if strict:
        refuse_errors(items)

    async def work_on(index: int, item: Item | InputError) -> Result | InputError:
        if isinstance(item, InputError):
            return item
        try:
            return await work(item)
        except ListTooLargeError:
            raise
        except InputError as error:
            if strict:
                error.index = index
                raise
            forget_frames(error)
            return error

    return await gather(work_on(index, item) for index, item in enumerate(items))

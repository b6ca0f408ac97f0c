"""Long lists in batches: what is asked about each, and the results of its items."""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from visiongate.operations import Operation
from visiongate.status import renumbered

BATCH_SIZE, CONCURRENCY = 16, 4


class Batches:
    """The batches of a list: an operation for each, whose first argument is the batch."""

    def __init__(
        self,
        operation: Callable[..., Operation[Any]],
        batch_size: int,
        concurrency: int,
        keywords: dict[str, Any],
    ) -> None:
        for name, value in {"batch_size": batch_size, "concurrency": concurrency}.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}: give a whole number, 1 or more")
        self._operation = operation
        self._size = batch_size
        self._keywords = {
            # An iterator would be used up by the first batch.
            name: list(value) if isinstance(value, Iterator) else value
            for name, value in keywords.items()
        }

    def of(self, items: Any) -> Iterator[Operation[Any]]:
        """Yield the operations, one after another, and take no more items than each needs."""
        if isinstance(items, str | bytes):
            raise TypeError(
                f"items is one {type(items).__name__}: give a list, or another iterable of several"
            )
        every, first = iter(items), 0
        while batch := list(islice(every, self._size)):
            yield self._made(batch, first)
            first += len(batch)

    async def of_async(self, items: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Operation[Any]]:
        """As `of`. The items may come by an async iterable, too."""
        if not isinstance(items, AsyncIterable):
            for operation in self.of(items):
                yield operation
            return
        batch: list[Any] = []
        first = 0
        async for item in items:
            batch.append(item)
            if len(batch) == self._size:
                yield self._made(batch, first)
                first += len(batch)
                batch = []
        if batch:
            yield self._made(batch, first)

    def _made(self, batch: Sequence[Any], first: int) -> Operation[Any]:
        return replace(self._operation(batch, **self._keywords), first_index=first)


def results(operation: Operation[Any], answer: Any) -> list[Any]:
    """Return a batch's results, one for each item. That of an item with an error is the error."""
    return [
        renumbered(answer.errors[index], operation.list_name, operation.first_index)
        if index in answer.errors
        else result
        for index, result in enumerate(answer)
    ]

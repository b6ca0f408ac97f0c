"""Work side by side in one event loop."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

Result = TypeVar("Result")


async def gather(work: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Return the results in order. The first failure cancels the rest, waits for them, and is raised.

    A TaskGroup would raise an ExceptionGroup, and callers expect the failure itself.
    """
    items = list(work)
    if len(items) == 1:
        # Most calls have one item, which needs no task of its own.
        return [await items[0]]
    tasks = [asyncio.create_task(item) for item in items]
    try:
        return await asyncio.gather(*tasks)
    finally:
        left = [task for task in tasks if not task.done()]
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)


class Slots:
    """A semaphore of which work may take several slots at a time. First come, first served."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = asyncio.Semaphore(count)
        # One after the other: two that each have a part could wait for each other.
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def take(self, count: int) -> AsyncIterator[None]:
        """Have so many slots inside, or all that exist if that is less."""
        taken = 0
        try:
            async with self._turn:
                while taken < min(count, self._count):
                    await self._free.acquire()
                    taken += 1
            yield
        finally:
            for _ in range(taken):
                self._free.release()

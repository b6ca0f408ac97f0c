"""Work side by side in one event loop."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

Result = TypeVar("Result")


async def gather(work: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Return the results in order. The first failure cancels the rest, waits for them, and is raised.

    A TaskGroup would raise an ExceptionGroup, and callers expect the failure itself.
    """
    tasks = [asyncio.create_task(item) for item in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        left = [task for task in tasks if not task.done()]
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)

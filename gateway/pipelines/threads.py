"""The threads that do a process's CPU work: decoding, resizing, writing masks."""

import asyncio
import itertools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import cv2

from gateway.concurrency import gather

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_SHARE = 8
"""Items handed to a thread at a time. A share that has started cannot be cancelled, so it is small."""


class Threads:
    """A pool of threads, used from one event loop."""

    def __init__(self, count: int) -> None:
        # These are all the threads that work: OpenCV would start as many again for each of them.
        cv2.setNumThreads(1)
        self._count = count
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="worker")

    def close(self) -> None:
        """Drop the work that has not started. Do not wait for the rest."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def run(self, function: Callable[..., Result], *arguments: Any, **keywords: Any) -> Result:
        """Run a function in a thread. If the caller is cancelled, work that has not started is dropped."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: function(*arguments, **keywords))

    async def run_each(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Run a function on each item, and return the results in order.

        A thread gets a few items at a time: handing work to a thread and back costs as much as writing a
        small mask.
        """

        def work(share: Sequence[Item]) -> list[Result]:
            return [function(item) for item in share]

        size = min(MAX_SHARE, math.ceil(len(items) / self._count))
        shares = [items[start : start + size] for start in range(0, len(items), size or 1)]
        return [*itertools.chain.from_iterable(await gather(self.run(work, share) for share in shares))]

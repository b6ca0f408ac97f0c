"""The threads that do a process's CPU work: decoding, resizing, writing masks."""

import asyncio
import contextlib
import contextvars
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import cv2

from gateway.concurrency import gather
from gateway.holding import keep
from gateway.memory import Memory

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_SHARE = 8
"""Items handed to a thread at a time. A share that has started cannot be cancelled, so it is small."""

MAX_SMALL = 16
"""Items that are worked on in the event loop, if each takes less than a tenth of a millisecond or so."""


class Threads:
    """A pool of threads, used from one event loop."""

    def __init__(self, count: int) -> None:
        # These are all the threads that work: OpenCV would start as many again for each of them.
        cv2.setNumThreads(1)
        self._count = count
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="worker")
        # Turns are waited for as memory is: the work of one caller does not queue before that of the others.
        # Twice as many as threads, so that none is idle between two turns.
        self._turns = Memory(2 * count)

    def close(self) -> None:
        """Drop the work that has not started. Do not wait for the rest."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def run(self, function: Callable[..., Result], *arguments: Any, **keywords: Any) -> Result:
        """Run a function in a thread, in the caller's context.

        If the caller is cancelled, work that has not started is dropped. Work that has started goes on, and
        keeps what its caller holds until it ends.
        """
        async with self._turns.reserve(1):
            context = contextvars.copy_context()
            work = self._pool.submit(context.run, functools.partial(function, *arguments, **keywords))
            try:
                return await asyncio.wrap_future(work)
            except asyncio.CancelledError:
                if not work.cancelled():
                    _keep_until_done(work)
                raise

    async def run_if_large(
        self, size: int, function: Callable[..., Result], *arguments: Any, **keywords: Any
    ) -> Result:
        """Run a function in a thread if it works on many items, otherwise here: that saves the way there."""
        if size <= MAX_SMALL:
            return function(*arguments, **keywords)
        return await self.run(function, *arguments, **keywords)

    async def run_each(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        room: Callable[[], AbstractAsyncContextManager[None]] = contextlib.nullcontext,
    ) -> list[Result]:
        """Run a function on each item, and return the results in order.

        A thread gets a few items at a time: handing work to a thread and back costs as much as writing a
        small mask. `room` is entered before a thread is: it waits for the memory that one item takes.
        """

        async def run(share: Sequence[Item]) -> list[Result]:
            async with room():
                return await self.run(work, share)

        def work(share: Sequence[Item]) -> list[Result]:
            return [function(item) for item in share]

        size = min(MAX_SHARE, math.ceil(len(items) / self._count))
        shares = [items[start : start + size] for start in range(0, len(items), size or 1)]
        return [*itertools.chain.from_iterable(await gather(run(share) for share in shares))]


def _keep_until_done(work: Future[Any]) -> None:
    loop, done = asyncio.get_running_loop(), keep()

    def tell(_work: Future[Any]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(done)

    work.add_done_callback(tell)

"""A cache bounded by bytes. A miss is computed once, however many calls ask at a time."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from cachetools import LRUCache

from gateway import metrics

Value = TypeVar("Value")


@dataclass(slots=True)
class _Flight(Generic[Value]):
    task: asyncio.Task[Value]
    waiters: int = 0


class ComputingCache(Generic[Value]):
    """Drops the least recently used values once `max_bytes` are held, as `size_of` counts them.

    Must be used from one event loop. `name` is the cache's name in the metrics; None counts nothing.
    """

    def __init__(self, name: str | None, max_bytes: int, size_of: Callable[[Value], int]) -> None:
        self._name = name
        self._values: LRUCache[str, Value] = LRUCache(max_bytes, size_of)
        self._size_of = size_of
        self._flights: dict[str, _Flight[Value]] = {}

    def get(self, key: str, *, count_miss: bool = True) -> Value | None:
        """Return the value of `key`, if it is kept. A miss that `get_or_compute` follows is counted there."""
        value = self._values.get(key)
        if value is not None:
            self._count("hit")
        elif count_miss:
            self._count("miss")
        return value

    async def get_or_compute(self, key: str, compute: Callable[[], Awaitable[Value]]) -> Value:
        """Return the value of `key`. Calls that miss it together share one computation.

        The computation belongs to all callers that wait for it: it outlives a cancelled caller as long as
        another one waits, and is cancelled with the last.
        """
        value = self.get(key, count_miss=False)
        if value is not None:
            return value
        flight = self._flights.get(key)
        self._count("miss" if flight is None else "shared")
        if flight is None:
            flight = _Flight(asyncio.create_task(self._compute(key, compute)))
            self._flights[key] = flight
            # If no caller is left to hear of a failure, the event loop must not log it.
            flight.task.add_done_callback(lambda task: task.cancelled() or task.exception())
        flight.waiters += 1
        try:
            # Without the shield, the first cancelled waiter would cancel the task under the others.
            return await asyncio.shield(flight.task)
        finally:
            flight.waiters -= 1
            if flight.waiters == 0:
                flight.task.cancel()
                # Not when a later call has already started a new one.
                if self._flights.get(key) is flight:
                    del self._flights[key]

    async def _compute(self, key: str, compute: Callable[[], Awaitable[Value]]) -> Value:
        value = await compute()
        if self._size_of(value) <= self._values.maxsize:
            self._values[key] = value
            if self._name is not None:
                metrics.CACHE_BYTES.labels(self._name).set(self._values.currsize)
        return value

    def _count(self, result: str) -> None:
        if self._name is not None:
            metrics.CACHE_LOOKUPS.labels(self._name, result).inc()

"""A cache bounded by bytes. A miss is computed once, however many calls ask at a time."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, TypeVar

from cachetools import LRUCache

from gateway import metrics

Value = TypeVar("Value")

_RESULTS = ("hit", "miss", "shared")


class Keep(IntEnum):
    """How a value is kept. If it is used in several ways, the highest counts."""

    NEVER = 0
    IF_ROOM = 1
    NORMAL = 2


@dataclass(slots=True)
class _Flight(Generic[Value]):
    task: asyncio.Task[Value]
    waiters: int = 0


class ComputingCache(Generic[Value]):
    """Keeps at most `max_bytes` of values, as `size_of` counts them.

    A value of Keep.NORMAL is dropped when room is needed and it is the least recently used. Values of
    Keep.IF_ROOM are dropped before, also the least recently used first. They drop only each other: they have
    the room that those of Keep.NORMAL leave. Once used as Keep.NORMAL, they are. So bulk work drops nothing
    that others come back to. Keep.NEVER is for values that nobody comes back to: calls that need one at the
    same time share it.

    Must be used from one event loop. `name` is the cache's name in the metrics; None counts nothing.
    """

    def __init__(self, name: str | None, max_bytes: int, size_of: Callable[[Value], int]) -> None:
        self._size_of = size_of
        # Each alone could fill the cache; `_store` bounds the two together.
        self._normal: LRUCache[str, Value] = LRUCache(max_bytes, size_of)
        self._if_room: LRUCache[str, Value] = LRUCache(max_bytes, size_of)
        self._flights: dict[str, _Flight[Value]] = {}
        self._bytes_metric = None if name is None else metrics.CACHE_BYTES.labels(name)
        self._lookups = (
            {}
            if name is None
            else {result: metrics.CACHE_LOOKUPS.labels(name, result) for result in _RESULTS}
        )
        if name is not None:
            self._tell_size()
            metrics.CACHE_MAX_BYTES.labels(name).set(max_bytes)

    def get(self, key: str, *, keep: Keep = Keep.NORMAL, count_miss: bool = True) -> Value | None:
        """Return the value of `key`, if it is kept. A miss that `get_or_compute` follows is counted there."""
        value = self._find(key, keep)
        if value is not None:
            self._count("hit")
        elif count_miss:
            self._count("miss")
        return value

    def put(self, key: str, value: Value, keep: Keep) -> None:
        """Keep a value that was computed elsewhere, if there is room and none for `key` yet."""
        if self._find(key, keep) is None:
            self._store(key, value, keep)

    def drop(self, key: str) -> None:
        """Forget the value of `key`."""
        dropped = [values.pop(key, None) for values in (self._normal, self._if_room)]
        if any(value is not None for value in dropped):
            self._tell_size()

    async def get_or_compute(
        self, key: str, compute: Callable[[], Awaitable[Value]], *, keep: Keep = Keep.NORMAL
    ) -> Value:
        """Return the value of `key`. Calls that miss it together share one computation.

        The computation belongs to all callers that wait for it: it outlives a cancelled caller as long as
        another one waits, and is cancelled with the last.
        """
        value = self.get(key, keep=keep, count_miss=False)
        if value is not None:
            return value
        flight = self._flights.get(key)
        self._count("miss" if flight is None else "shared")
        if flight is None:
            flight = _Flight(asyncio.create_task(_compute(compute)))
            self._flights[key] = flight
            # If no caller is left to hear of a failure, the event loop must not log it.
            flight.task.add_done_callback(lambda task: task.cancelled() or task.exception())
        flight.waiters += 1
        try:
            # Without the shield, the first cancelled waiter would cancel the task under the others.
            value = await asyncio.shield(flight.task)
            # Each caller keeps it in its own way. One that has gone need not.
            if self._find(key, keep) is None:
                self._store(key, value, keep)
            return value
        finally:
            flight.waiters -= 1
            if flight.waiters == 0:
                flight.task.cancel()
                # Not when a later call has already started a new one.
                if self._flights.get(key) is flight:
                    del self._flights[key]

    def _find(self, key: str, keep: Keep) -> Value | None:
        if keep is Keep.NORMAL and key in self._if_room:
            self._normal[key] = self._if_room.pop(key)
        value = self._normal.get(key)
        return self._if_room.get(key) if value is None else value

    def _store(self, key: str, value: Value, keep: Keep) -> None:
        size, room = self._size_of(value), self._normal.maxsize
        if keep is Keep.IF_ROOM:
            room -= self._normal.currsize
        if keep is Keep.NEVER or size > room:
            return
        while self._if_room and self._held_bytes + size > self._normal.maxsize:
            self._if_room.popitem()
        (self._normal if keep is Keep.NORMAL else self._if_room)[key] = value
        self._tell_size()

    def _tell_size(self) -> None:
        if self._bytes_metric is not None:
            self._bytes_metric.set(self._held_bytes)

    @property
    def _held_bytes(self) -> float:
        return self._normal.currsize + self._if_room.currsize

    def _count(self, result: str) -> None:
        if self._lookups:
            self._lookups[result].inc()


async def _compute(compute: Callable[[], Awaitable[Value]]) -> Value:
    return await compute()

"""Memory that is waited for: each caller in turn, and of one caller first come, first served."""

import asyncio
from collections import deque
from contextlib import AbstractAsyncContextManager
from types import TracebackType

from gateway import callers
from gateway.callers import Caller, Portions
from gateway.holding import holding


class Memory:
    """A number of bytes that the work of one event loop shares. Work waits until enough of them are free.

    Nobody may wait for a second part while holding a first one: two who do could wait for each other.
    """

    def __init__(self, max_bytes: int) -> None:
        self._bytes = Portions(max_bytes)
        # Those who wait, by caller. The caller whose turn it is comes first.
        self._waiting: dict[Caller, deque[tuple[int, asyncio.Future[None]]]] = {}

    def reserve(self, size: int) -> "Reservation":
        """Reserve so many bytes inside for the current caller, or all that exist if that is less.

        Threads that work inside keep the bytes until they end, also if the caller leaves before.
        """
        return Reservation(self, min(size, self._bytes.amount))

    async def _take(self, caller: Caller, size: int) -> None:
        if not self._waiting and self._has_room(size) and self._bytes.has_share(caller, size):
            self._bytes.take(caller, size)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append((size, turn))
        self._serve()
        if turn.done():
            return
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._serve()  # others may have waited behind it
            else:
                self._release(caller, size)  # its turn came in the same moment
            raise

    def _release(self, caller: Caller, size: int) -> None:
        self._bytes.take(caller, -size)
        self._serve()

    def _serve(self) -> None:
        """Give those who wait their bytes. A large part is not overtaken by small ones behind it."""
        while (caller := self._next_caller()) is not None:
            size, turn = self._waiting[caller][0]
            if not self._has_room(size):
                return
            self._bytes.take(caller, size)
            turn.set_result(None)
            queue = self._waiting.pop(caller)
            queue.popleft()
            if queue:
                self._waiting[caller] = queue  # behind the others

    def _has_room(self, size: int) -> bool:
        return self._bytes.taken + size <= self._bytes.amount

    def _next_caller(self) -> Caller | None:
        """Return the next caller that waits. Those that have their share already are passed over."""
        for caller, queue in list(self._waiting.items()):
            while queue and queue[0][1].cancelled():
                queue.popleft()
            if not queue:
                del self._waiting[caller]
            elif self._bytes.has_share(caller, queue[0][0]):
                return caller
        return None


class Reservation(AbstractAsyncContextManager[None]):
    """A part of the memory, which is taken inside. It is entered once.

    A class and no generator: every hand-off to a thread enters one.
    """

    __slots__ = ("_holding", "_memory", "_size")

    def __init__(self, memory: Memory, size: int) -> None:
        self._memory = memory
        self._size = size

    async def __aenter__(self) -> None:
        memory, size, caller = self._memory, self._size, callers.current()
        await memory._take(caller, size)
        self._holding = holding(lambda: memory._release(caller, size))
        self._holding.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._holding.__exit__(kind, error, trace)

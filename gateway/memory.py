"""Memory that is waited for, first come, first served."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.holding import holding


class Memory:
    """A number of bytes that the work of one event loop shares. Work waits until enough of them are free.

    Nobody may wait for a second part while holding a first one: two who do could wait for each other.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._reserved = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def reserve(self, size: int) -> AsyncIterator[None]:
        """Reserve so many bytes inside, or all that exist if that is less.

        Threads that work inside keep the bytes until they end, also if the caller leaves before.
        """
        size = min(size, self._max_bytes)
        await self._take(size)
        with holding(lambda: self._release(size)):
            yield

    async def _take(self, size: int) -> None:
        if not self._waiting and self._reserved + size <= self._max_bytes:
            self._reserved += size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._serve()  # others may have waited behind it
            else:
                self._release(size)  # its turn came in the same moment
            raise

    def _release(self, size: int) -> None:
        self._reserved -= size
        self._serve()

    def _serve(self) -> None:
        """Give those who wait their bytes, in their order. A large part is not overtaken by small ones."""
        while self._waiting:
            size, turn = self._waiting[0]
            if not turn.cancelled():
                if self._reserved + size > self._max_bytes:
                    return
                self._reserved += size
                turn.set_result(None)
            self._waiting.popleft()

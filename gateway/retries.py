"""How often, and when, requests are sent again to servers that died."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class RetryBudget:
    """How many requests whose connection was lost may be sent again, over all calls.

    The scheme of gRPC's retry throttling (proposal A6): answers earn, repetitions spend, and below half of
    the most there is no repetition. The requests of one server that dies are all sent again. If one after the
    other dies, the load of what is left is not doubled.
    """

    _MAX, _EARNED, _SPENT = 256.0, 0.1, 1.0

    def __init__(self) -> None:
        self._tokens = self._MAX

    def earn(self) -> None:
        """Count an answer."""
        self._tokens = min(self._tokens + self._EARNED, self._MAX)

    def spend(self) -> bool:
        """Count a repetition, and return True if it may be."""
        self._tokens = max(self._tokens - self._SPENT, 0)
        return self._tokens >= self._MAX / 2


class Turns:
    """Work that is done one at a time, in the order in which it comes. It belongs to one event loop.

    Work that takes longer than `max_s` goes on, and the next begins.
    """

    def __init__(self, max_s: float) -> None:
        self._max_s = max_s
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it inside."""
        await self._lock.acquire()
        has_turn = True

        def end() -> None:
            nonlocal has_turn
            if has_turn:
                has_turn = False
                self._lock.release()

        timer = asyncio.get_running_loop().call_later(self._max_s, end)
        try:
            yield
        finally:
            timer.cancel()
            end()

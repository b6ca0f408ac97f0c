"""Limits on the calls that a process answers, and on the bytes that they hold from first to last.

A call takes a place while its message arrives and while it is worked on. Its bytes count from the arrival of
its message until gRPC has handed over its answer, whoever is slow. A call beyond the limits is refused
immediately; a queue would delay everybody.
"""

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import NoReturn

from gateway import metrics
from gateway.errors import OverloadedError
from gateway.holding import holding, keep
from gateway.memory import Memory

# A random pause each: callers that are refused together should not come back together.
_MIN_RETRY_S, _MAX_RETRY_S = 0.5, 1.5

SLOW_AFTER_S = 0.25
"""A message that takes longer to arrive gives its place to others meanwhile."""


class Gate:
    """Counts the calls in flight and the bytes they hold. It belongs to one event loop.

    Nobody can see how much of a message has arrived. So each that arrives counts as the largest that is
    allowed, in an account of its own, half as large as `max_bytes`. If that is full, the next message is not
    read until its turn comes: gRPC then lets the caller send no more than 64 KiB of it. Slow messages have
    half of that account at most: beyond it they are refused.
    """

    def __init__(self, max_calls: int, max_bytes: int, max_message_bytes: int) -> None:
        self._max_calls = max_calls
        self._max_bytes = max_bytes
        self._max_message_bytes = max_message_bytes
        self._calls = 0
        self._bytes = 0
        self._arrivals = Memory(max_bytes // 2)
        self._max_slow = max(1, max_bytes // 2 // max_message_bytes // 2)
        self._slow = 0
        # Calls whose message arrived slowly, and that want a place again.
        self._waiting: deque[asyncio.Future[None]] = deque()

    @contextmanager
    def admit(
        self, at_end: Callable[[Callable[[], None]], None] = lambda done: done()
    ) -> Iterator["Admission"]:
        """Keep the place of one call inside, and what it adds to it; raise OverloadedError if there is none.

        `at_end` gets a function to call once the answer is taken: until then the call's bytes are kept. By
        default that is at the end of the block.
        """
        if self._calls >= self._max_calls:
            _refuse(
                f"the server answers at most {self._max_calls} calls at a time, and has as many now", "calls"
            )
        admission = Admission(self)
        token = _current.set(admission)
        try:
            with holding(admission.free_bytes):
                at_end(keep())
                with holding(admission.free_places):
                    yield admission
        finally:
            _current.reset(token)

    def _free_places(self, count: int) -> None:
        self._count_calls(-count)
        while self._waiting and self._calls < self._max_calls:
            turn = self._waiting.popleft()
            if not turn.done():
                self._count_calls(1)
                turn.set_result(None)

    async def _next_place(self) -> None:
        """Wait for a place, before all calls that come now."""
        if self._calls < self._max_calls:
            self._count_calls(1)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._free_places(1)  # its turn came in the same moment
            raise

    def _count_calls(self, change: int) -> None:
        self._calls += change
        metrics.CALLS_IN_FLIGHT.inc(change)

    def _count_bytes(self, change: int) -> None:
        self._bytes += change
        metrics.BYTES_IN_FLIGHT.inc(change)


class Admission:
    """The places and bytes of one call."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._places = 1
        self._bytes = 0
        gate._count_calls(1)

    @asynccontextmanager
    async def arriving(self) -> AsyncIterator[None]:
        """Inside, the call's message arrives.

        If that is slow, others get the call's place; the call waits for one again at the end. Raises
        OverloadedError if too many calls are slow.
        """
        gate, loop = self._gate, asyncio.get_running_loop()
        is_slow = is_refused = False

        def slow_down() -> None:
            nonlocal is_slow, is_refused
            if gate._slow < gate._max_slow:
                is_slow = True
                gate._slow += 1
                self.free_places()
            else:
                is_refused = True
                interruption.reschedule(loop.time())

        async with gate._arrivals.reserve(gate._max_message_bytes):
            try:
                async with asyncio.timeout(None) as interruption:
                    timer = loop.call_later(SLOW_AFTER_S, slow_down)
                    try:
                        yield
                    finally:
                        timer.cancel()
                if is_slow:
                    await gate._next_place()
                    self._places = 1
            except TimeoutError:
                if not is_refused:
                    raise
                _refuse(
                    f"the server takes at most {gate._max_slow} slow requests at a time, and has as many now",
                    "slow",
                )
            finally:
                gate._slow -= is_slow

    def add(self, size: int) -> None:
        """Count more bytes; raise OverloadedError if there is no room for them.

        A call that is alone always has room: what one call may bring has limits of its own.
        """
        gate = self._gate
        of_others = gate._bytes - self._bytes
        if size > 0 and of_others and gate._bytes + size > gate._max_bytes:
            _refuse(
                f"the server holds at most {gate._max_bytes} bytes for calls, and has nearly as many now",
                "bytes",
            )
        self._bytes += size
        gate._count_bytes(size)

    def hold_only(self, size: int) -> None:
        """Count so many bytes instead of all so far: the work is done, and only its answer is left."""
        self._gate._count_bytes(size - self._bytes)
        self._bytes = size

    def weigh(self, places: int) -> None:
        """Take so many places in all, at most a quarter of them; raise OverloadedError if they are taken."""
        gate = self._gate
        more = min(places, max(1, gate._max_calls // 4)) - self._places
        if more > 0:
            if gate._calls + more > gate._max_calls:
                _refuse(
                    f"the call has the weight of {self._places + more} calls, the server answers at most "
                    f"{gate._max_calls} at a time, and has {gate._calls} now",
                    "calls",
                )
            self._places += more
            gate._count_calls(more)

    def free_places(self) -> None:
        """Give the call's places to others."""
        places, self._places = self._places, 0
        self._gate._free_places(places)

    def free_bytes(self) -> None:
        """Count none of the call's bytes any more."""
        size, self._bytes = self._bytes, 0
        self._gate._count_bytes(-size)


_current: ContextVar[Admission | None] = ContextVar("admission", default=None)


def reserve(size: int) -> None:
    """Count more bytes until the current call ends; raise OverloadedError if there is no room.

    A decoded image may take hundreds of times the bytes of its file. Without a call nothing is counted.
    """
    admission = _current.get()
    if admission is not None:
        admission.add(size)


def release(size: int) -> None:
    """Release bytes that the current call reserved, before it ends."""
    reserve(-size)


def weigh(amount: int, share: int) -> None:
    """Let the current call count as one call for each `share` of the amount of work that it asks for.

    Raises OverloadedError if the server has too many calls for that.
    """
    admission = _current.get()
    if admission is not None:
        admission.weigh(-(-amount // share))


def _refuse(message: str, reason: str) -> NoReturn:
    metrics.REFUSALS.labels(reason).inc()
    raise OverloadedError(message, retry_s=random.uniform(_MIN_RETRY_S, _MAX_RETRY_S))  # noqa: S311

"""Limits on the calls that a process answers, and on the bytes that they hold from first to last.

A call takes a place while its message arrives and while it is worked on. Its bytes count from the arrival of
its message until gRPC has handed over its answer, whoever is slow. A call beyond the limits is refused
immediately; a queue would delay everybody. A call that is under way and needs more is not refused, since its
work would be lost: it waits for others to end.
"""

import asyncio
import bisect
import itertools
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
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
        # Calls that wait for bytes, the oldest first.
        self._hungry: list[_Hungry] = []
        self._serial_numbers = itertools.count()
        self._answer_bytes = 0  # of calls whose work is done

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
        if change < 0:
            self._feed()

    def _has_room(self, admission: "Admission", size: int) -> bool:
        """Return whether a call may have more bytes. One that is alone may: it has limits of its own."""
        return self._bytes == admission.size or self._bytes + size <= self._max_bytes

    def _is_free(self, admission: "Admission", size: int) -> bool:
        """Return whether a call may have more bytes now, although others may wait for some.

        Small amounts pass those who wait. Otherwise a few large calls would keep out all others.
        """
        is_small = size <= self._max_bytes // (4 * self._max_calls or 1)
        return (is_small or not self._hungry) and self._has_room(admission, size)

    def _feed(self) -> None:
        """Give bytes to the calls that wait for them, the oldest first.

        If all calls that have bytes wait for more, none would ever end. The oldest then gets what it needs.
        """
        while self._hungry:
            first = self._hungry[0]
            if first.turn.cancelled():
                self._hungry.pop(0)
                continue
            admission = first.admission
            if not self._has_room(admission, first.size):
                waiting = {hungry.admission for hungry in self._hungry}
                working = self._bytes - self._answer_bytes - sum(call.size for call in waiting)
                if working or self._answer_bytes + admission.size + first.size > self._max_bytes:
                    return
            self._hungry.pop(0)
            first.turn.set_result(None)
            admission.count(first.size)


class Admission:
    """The places and bytes of one call. `size` is its bytes."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._places = 1
        self.size = 0
        self.serial_number = next(gate._serial_numbers)
        self._has_answer = False
        self._is_over = False
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
        """Count the bytes of a message; raise OverloadedError if there is no room for them."""
        gate = self._gate
        if size > 0 and not gate._is_free(self, size) and gate._bytes > self.size:
            _refuse(
                f"the server holds at most {gate._max_bytes} bytes for calls, and has nearly as many now",
                "bytes",
            )
        self.count(size)

    async def reserve(self, size: int) -> None:
        """Count more bytes, as soon as there is room for them."""
        gate = self._gate
        if self._is_over or gate._is_free(self, size):
            self.count(size)
            return
        hungry = _Hungry(self, size, asyncio.get_running_loop().create_future())
        bisect.insort(gate._hungry, hungry, key=lambda each: each.admission.serial_number)
        gate._feed()
        try:
            await hungry.turn
        except asyncio.CancelledError:
            if hungry.turn.cancelled():
                gate._feed()  # others may have waited behind it
            else:
                self.count(-size)  # its turn came in the same moment
            raise

    def count(self, change: int) -> None:
        """Count more bytes, or fewer.

        Nothing counts once the call is over. Work that it shares with other calls may go on after it.
        """
        if self._is_over:
            return
        self.size += change
        if self._has_answer:
            self._gate._answer_bytes += change
        self._gate._count_bytes(change)

    def hold_only(self, size: int) -> None:
        """Count so many bytes instead of all so far: the work is done, and only its answer is left."""
        self._has_answer = True
        self._gate._answer_bytes += self.size
        self.count(size - self.size)

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
        self.count(-self.size)
        self._is_over = True


@dataclass(frozen=True, slots=True, eq=False)
class _Hungry:
    """A call that waits for bytes."""

    admission: Admission
    size: int
    turn: asyncio.Future[None]


_current: ContextVar[Admission | None] = ContextVar("admission", default=None)


async def reserve(size: int) -> None:
    """Count more bytes until the current call ends, as soon as there is room for them.

    A decoded image may take hundreds of times the bytes of its file. Without a call nothing is counted.
    """
    admission = _current.get()
    if admission is not None:
        await admission.reserve(size)


def release(size: int) -> None:
    """Release bytes that the current call reserved, before it ends."""
    admission = _current.get()
    if admission is not None:
        admission.count(-size)


def weigh(amount: int, share: int) -> None:
    """Let the current call count as one call for each `share` of the amount of work that it asks for.

    Raises OverloadedError if the server has too many calls for that.
    """
    admission = _current.get()
    if admission is not None:
        admission.weigh(-(-amount // share))


def _refuse(message: str, reason: str) -> NoReturn:
    metrics.REFUSALS.labels(reason).inc()
    raise OverloadedError(message, reason, retry_s=random.uniform(_MIN_RETRY_S, _MAX_RETRY_S))  # noqa: S311

"""Limits on the calls that a process answers, and on the bytes that they hold from first to last.

A call takes a place while its message arrives and while it is worked on. Its bytes count from the arrival of
its message until gRPC has handed over its answer, whoever is slow. A call beyond the limits is refused
immediately; a queue would delay everybody. A call that is under way and needs more is not refused, since its
work would be lost: it waits for others to end. One caller of several has a share of everything at most
(`callers.py`), so that it cannot shut out the others.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
)
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType

import grpc

from gateway import callers, metrics
from gateway.alarms import Alarms, interruption
from gateway.byte_account import ByteAccount, CallBytes
from gateway.callers import NOBODY, Caller, Callers, Portions
from gateway.errors import OverloadedError, StatusError
from gateway.holding import holding, keep
from gateway.memory import Memory
from gateway.refusals import check_share, refuse
from gateway.reservations import current_bytes

SLOW_AFTER_S = 0.25
"""A message that takes longer to arrive gives its place to others meanwhile."""


class Gate:
    """Counts the calls in flight and the bytes they hold. It belongs to one event loop.

    Nobody can see how much of a message has arrived. So each that arrives counts as the largest that is
    allowed, in an account of its own, half as large as `max_bytes`. If that is full, the next message is not
    read until its turn comes: gRPC then lets the caller send no more than 64 KiB of it. Slow messages have
    half of that account at most: beyond it they are refused.
    """

    def __init__(
        self, max_calls: int, max_bytes: int, max_message_bytes: int, callers: Callers | None = None
    ) -> None:
        self.callers = callers or Callers()
        self._calls = Portions(max_calls)
        # Small amounts pass those who wait: otherwise a few large calls would keep out all others.
        self._account = ByteAccount(max_bytes, small_bytes=max_bytes // (4 * max_calls or 1))
        self._max_message_bytes = max_message_bytes
        metrics.MAX_CALLS_IN_FLIGHT.set(max_calls)
        metrics.MAX_BYTES_IN_FLIGHT.set(max_bytes)
        self._arrivals = Memory(max_bytes // 2)
        self._slow = Portions(max(1, max_bytes // 2 // max_message_bytes // 2))
        # Each stream may bring a message at any time. Half of what slow messages leave stays for others.
        self._streams = Portions(max_bytes // 2 // max_message_bytes * 3 // 8)
        # Streams take all places that they can get. These stay for calls, which are refused without one.
        self._max_item_places = max(1, max_calls * 3 // 4)
        self._item_places = 0
        # Calls whose message arrived slowly, and that want a place again; and items of streams.
        self._waiting: deque[_Waiting] = deque()

    def admit(
        self, caller: Caller = NOBODY, at_end: Callable[[Callable[[], None]], None] = lambda done: done()
    ) -> AbstractContextManager["Admission"]:
        """Keep the place of one call inside, and what it adds to it; raise OverloadedError if there is none.

        `at_end` gets a function to call once the answer is taken: until then the call's bytes are kept. By
        default that is at the end of the block.
        """
        return _Inside(self, caller, at_end, is_item=False)

    def _take_place(self, caller: Caller) -> None:
        check_share(self._calls, caller, 1, "calls at a time")
        if self._calls.taken >= self._calls.amount:
            refuse(
                f"the server answers at most {self._calls.amount} calls at a time, and has as many now",
                "calls",
            )
        self._count_calls(caller, 1)

    @asynccontextmanager
    async def admit_item(
        self, caller: Caller, at_end: Callable[[Callable[[], None]], None]
    ) -> AsyncIterator["Admission"]:
        """Keep the place of one item of a stream inside, as `admit` does. Wait until there is one."""
        await self._next_places(caller, 1, is_item=True)
        with _Inside(self, caller, at_end, is_item=True) as admission:
            yield admission

    @asynccontextmanager
    async def stream(self, caller: Caller) -> AsyncIterator[None]:
        """Keep inside what a stream needs: the memory into which its next message may arrive.

        Raises OverloadedError if there are too many streams. They take no places: their items do.
        """
        if not self._streams.amount:
            raise StatusError(
                grpc.StatusCode.FAILED_PRECONDITION,
                "the server has no room for streams: max_bytes_in_flight must be at least six times "
                "max_message_bytes",
                reason="NO_STREAMS",
            )
        check_share(self._streams, caller, 1, "streams at a time")
        if self._streams.taken >= self._streams.amount:
            refuse(
                f"the server has at most {self._streams.amount} streams at a time, and has as many now",
                "streams",
            )
        self._streams.take(caller, 1)
        try:
            with callers.working_for(caller):
                async with self._arrivals.reserve(self._max_message_bytes):
                    yield
        finally:
            self._streams.take(caller, -1)

    def _free_places(self, caller: Caller, count: int, *, is_item: bool = False) -> None:
        self._count_calls(caller, -count, is_item=is_item)
        while (turn := self._next_turn()) is not None:
            turn.set_result(None)

    def _next_turn(self) -> asyncio.Future[None] | None:
        """Give free places to the first call that waits for some, of a caller that may have them.

        One that waits for several is not overtaken, except by others while its caller has its share.
        """
        if self._calls.taken >= self._calls.amount:
            return None
        are_items_next = True
        for waiting in self._waiting:
            if waiting.turn.done() or not self._calls.has_share(waiting.caller, waiting.places):
                continue
            if waiting.is_item and not (
                are_items_next and self._item_places + waiting.places <= self._max_item_places
            ):
                are_items_next = False
                continue
            if self._calls.taken + waiting.places > self._calls.amount:
                return None
            self._waiting.remove(waiting)
            self._count_calls(waiting.caller, waiting.places, is_item=waiting.is_item)
            return waiting.turn
        return None

    async def _next_places(self, caller: Caller, places: int, *, is_item: bool = False) -> None:
        """Wait for places, before all calls that come now."""
        turn = asyncio.get_running_loop().create_future()
        waiting = _Waiting(caller, places, is_item, turn)
        self._waiting.append(waiting)
        self._free_places(caller, 0)
        if turn.done():
            return
        try:
            await turn
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
                self._free_places(caller, 0)  # others may have waited behind it
            else:
                self._free_places(caller, places, is_item=is_item)  # its turn came in the same moment
            raise

    def _count_calls(self, caller: Caller, change: int, *, is_item: bool = False) -> None:
        self._calls.take(caller, change)
        self._item_places += change if is_item else 0
        metrics.CALLS_IN_FLIGHT.inc(change)


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """A call that waits for places."""

    caller: Caller
    places: int
    is_item: bool
    turn: asyncio.Future[None]


class Admission(CallBytes):
    """The bytes and the places of one call."""

    def __init__(self, gate: Gate, caller: Caller, *, is_item: bool = False) -> None:
        super().__init__(gate._account, caller)
        self._gate = gate
        self._is_item = is_item
        self._places = 1
        self._wanted_places = 0

    def arriving(self, alarms: Alarms | None = None) -> AbstractAsyncContextManager[None]:
        """Inside, the call's message arrives.

        If that is slow, others get the call's place; the call waits for one again at the end. Raises
        OverloadedError if too many calls are slow.
        """
        return _Arrival(self, alarms)

    async def _take_place_again(self) -> None:
        await self._gate._next_places(self.caller, 1)
        self._places = 1

    def weigh(self, places: int) -> None:
        """Take so many places in all, at most a quarter of them; raise OverloadedError if they are taken."""
        calls = self._gate._calls
        more = min(places, max(1, calls.amount // 4)) - self._places
        if more > 0 and self._is_item:
            self._wanted_places = self._places + more
            raise HeavyItemError
        if more > 0:
            check_share(
                calls, self.caller, more, f"calls at a time (this one counts as {self._places + more})"
            )
            if calls.taken + more > calls.amount:
                refuse(
                    f"the call has the weight of {self._places + more} calls, the server answers at most "
                    f"{calls.amount} at a time, and has {calls.taken} now",
                    "calls",
                )
            self._places += more
            self._gate._count_calls(self.caller, more)

    async def take_wanted_places(self) -> None:
        """Wait for the places that an item is worth, after HeavyItemError."""
        self.free_places()
        await self._gate._next_places(self.caller, self._wanted_places, is_item=True)
        self._places = self._wanted_places

    def free_places(self) -> None:
        """Give the call's places to others."""
        places, self._places = self._places, 0
        self._gate._free_places(self.caller, places, is_item=self._is_item)


class _Inside(AbstractContextManager[Admission]):
    """The place of a call, or of an item of a stream, which has its place already."""

    def __init__(
        self, gate: Gate, caller: Caller, at_end: Callable[[Callable[[], None]], None], *, is_item: bool
    ) -> None:
        self._gate = gate
        self._caller = caller
        self._at_end = at_end
        self._is_item = is_item

    def __enter__(self) -> Admission:
        caller = self._caller
        if not self._is_item:
            self._gate._take_place(caller)
        admission = Admission(self._gate, caller, is_item=self._is_item)
        self._tokens = _current.set(admission), current_bytes.set(admission)
        self._work = callers.working_for(caller)
        self._work.__enter__()
        self._bytes, self._places = holding(admission.free_bytes), holding(admission.free_places)
        self._bytes.__enter__()
        try:
            self._at_end(keep())
        finally:
            self._places.__enter__()
        return admission

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._places.__exit__(kind, error, trace)
        self._bytes.__exit__(kind, error, trace)
        self._work.__exit__(kind, error, trace)
        call, of_bytes = self._tokens
        _current.reset(call)
        current_bytes.reset(of_bytes)


class _Arrival(AbstractAsyncContextManager[None]):
    """The time in which a call's message arrives."""

    def __init__(self, admission: Admission, alarms: Alarms | None) -> None:
        self._admission = admission
        self._slow = admission._gate._slow
        self._given = alarms
        self._is_slow = False
        self._refusal: OverloadedError | None = None

    async def __aenter__(self) -> None:
        gate = self._admission._gate
        self._room = gate._arrivals.reserve(gate._max_message_bytes)
        await self._room.__aenter__()
        self._interruption = interruption()
        self._interruption.__enter__()
        self._alarms = self._given or Alarms(SLOW_AFTER_S)
        self._alarm = self._alarms.add(SLOW_AFTER_S, self._slow_down)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._alarms.remove(self._alarm)
            del self._alarm  # it knows this, and a cycle would keep the task
            if self._given is None:
                self._alarms.close()
            if self._interruption.is_cause_of(kind) and self._refusal is not None:
                raise self._refusal from None
            if self._is_slow and kind is None:
                await self._admission._take_place_again()
        finally:
            if self._is_slow:
                self._slow.take(self._admission.caller, -1)
            await self._room.__aexit__(kind, error, trace)

    def _slow_down(self) -> None:
        slow, caller = self._slow, self._admission.caller
        try:
            check_share(slow, caller, 1, "slow requests at a time")
            if slow.taken >= slow.amount:
                refuse(
                    f"the server takes at most {slow.amount} slow requests at a time, and has as many now",
                    "slow",
                )
        except OverloadedError as error:
            self._refusal = error
            self._interruption.strike()
        else:
            self._is_slow = True
            slow.take(caller, 1)
            self._admission.free_places()


class HeavyItemError(Exception):
    """An item of a stream is worth more places than it has: whoever waits for them begins again with it."""


_current: ContextVar[Admission | None] = ContextVar("admission", default=None)


def weigh(amount: int, share: int) -> None:
    """Let the current call count as one call for each `share` of the amount of work that it asks for.

    Raises OverloadedError if the server has too many calls for that.
    """
    admission = _current.get()
    if admission is not None:
        admission.weigh(-(-amount // share))

"""Limits on the calls that a process answers, and on the bytes that they hold from first to last.

A call takes a place while its message arrives and while it is worked on. Its bytes count from the arrival of
its message until gRPC has handed over its answer, whoever is slow. A call beyond the limits is refused
immediately; a queue would delay everybody. A call that is under way and needs more is not refused, since its
work would be lost: it waits for others to end. One caller of several has a share of everything at most
(`callers.py`), so that it cannot shut out the others.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import grpc

from gateway import callers, metrics
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

    @contextmanager
    def admit(
        self, caller: Caller = NOBODY, at_end: Callable[[Callable[[], None]], None] = lambda done: done()
    ) -> Iterator["Admission"]:
        """Keep the place of one call inside, and what it adds to it; raise OverloadedError if there is none.

        `at_end` gets a function to call once the answer is taken: until then the call's bytes are kept. By
        default that is at the end of the block.
        """
        check_share(self._calls, caller, 1, "calls at a time")
        if self._calls.taken >= self._calls.amount:
            refuse(
                f"the server answers at most {self._calls.amount} calls at a time, and has as many now",
                "calls",
            )
        self._count_calls(caller, 1)
        with self._inside(Admission(self, caller), at_end) as admission:
            yield admission

    @asynccontextmanager
    async def admit_item(
        self, caller: Caller, at_end: Callable[[Callable[[], None]], None]
    ) -> AsyncIterator["Admission"]:
        """Keep the place of one item of a stream inside, as `admit` does. Wait until there is one."""
        await self._next_places(caller, 1, is_item=True)
        with self._inside(Admission(self, caller, is_item=True), at_end) as admission:
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

    @contextmanager
    def _inside(
        self, admission: "Admission", at_end: Callable[[Callable[[], None]], None]
    ) -> Iterator["Admission"]:
        token, bytes_token = _current.set(admission), current_bytes.set(admission)
        try:
            with callers.working_for(admission.caller), holding(admission.free_bytes):
                at_end(keep())
                with holding(admission.free_places):
                    yield admission
        finally:
            _current.reset(token)
            current_bytes.reset(bytes_token)

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

    @asynccontextmanager
    async def arriving(self) -> AsyncIterator[None]:
        """Inside, the call's message arrives.

        If that is slow, others get the call's place; the call waits for one again at the end. Raises
        OverloadedError if too many calls are slow.
        """
        slow, loop = self._gate._slow, asyncio.get_running_loop()
        is_slow = False
        refusal: OverloadedError | None = None

        def slow_down() -> None:
            nonlocal is_slow, refusal
            try:
                check_share(slow, self.caller, 1, "slow requests at a time")
                if slow.taken >= slow.amount:
                    refuse(
                        f"the server takes at most {slow.amount} slow requests at a time, and has "
                        "as many now",
                        "slow",
                    )
            except OverloadedError as error:
                refusal = error
                interruption.reschedule(loop.time())
            else:
                is_slow = True
                slow.take(self.caller, 1)
                self.free_places()

        async with self._gate._arrivals.reserve(self._gate._max_message_bytes):
            try:
                async with asyncio.timeout(None) as interruption:
                    timer = loop.call_later(SLOW_AFTER_S, slow_down)
                    try:
                        yield
                    finally:
                        timer.cancel()
                if is_slow:
                    await self._gate._next_places(self.caller, 1)
                    self._places = 1
            except TimeoutError:
                if refusal is None:
                    raise
                raise refusal from None
            finally:
                slow.take(self.caller, -int(is_slow))

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

"""Limits on the calls that a process answers, and on the bytes that they hold from first to last.

A call takes a place while its message arrives and while it is worked on. Its bytes count from the arrival of
its message until gRPC has handed over its answer, whoever is slow. A call beyond the limits is refused
immediately; a queue would delay everybody. A call that is under way and needs more is not refused, since its
work would be lost: it waits for others to end. One caller of several has a share of everything at most
(`callers.py`), so that it cannot shut out the others.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar

from gateway import callers, metrics
from gateway.byte_account import ByteAccount, CallBytes
from gateway.callers import NOBODY, Caller, Callers, Portions
from gateway.errors import OverloadedError
from gateway.holding import holding, keep
from gateway.memory import Memory
from gateway.refusals import check_share, refuse

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
        # Calls whose message arrived slowly, and that want a place again.
        self._waiting: deque[tuple[Caller, asyncio.Future[None]]] = deque()

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
        admission = Admission(self, caller)
        token, bytes_token = _current.set(admission), _bytes.set(admission)
        try:
            with callers.working_for(caller), holding(admission.free_bytes):
                at_end(keep())
                with holding(admission.free_places):
                    yield admission
        finally:
            _current.reset(token)
            _bytes.reset(bytes_token)

    def _free_places(self, caller: Caller, count: int) -> None:
        self._count_calls(caller, -count)
        while (turn := self._next_turn()) is not None:
            turn.set_result(None)

    def _next_turn(self) -> asyncio.Future[None] | None:
        """Give a free place to the first call that waits for one, of a caller that may have it."""
        if self._calls.taken < self._calls.amount:
            for waiting in self._waiting:
                caller, turn = waiting
                if not turn.done() and self._calls.has_share(caller, 1):
                    self._waiting.remove(waiting)
                    self._count_calls(caller, 1)
                    return turn
        return None

    async def _next_place(self, caller: Caller) -> None:
        """Wait for a place, before all calls that come now."""
        waiting = caller, asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self._free_places(caller, 0)
        try:
            await waiting[1]
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            else:
                self._free_places(caller, 1)  # its turn came in the same moment
            raise

    def _count_calls(self, caller: Caller, change: int) -> None:
        self._calls.take(caller, change)
        metrics.CALLS_IN_FLIGHT.inc(change)


class Admission(CallBytes):
    """The bytes and the places of one call."""

    def __init__(self, gate: Gate, caller: Caller) -> None:
        super().__init__(gate._account, caller)
        self._gate = gate
        self._places = 1
        gate._count_calls(caller, 1)

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
                    await self._gate._next_place(self.caller)
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

    def free_places(self) -> None:
        """Give the call's places to others."""
        places, self._places = self._places, 0
        self._gate._free_places(self.caller, places)


class ItemBytes:
    """The bytes of one item of a call's list, which are the call's too."""

    def __init__(self, call: "CallBytes | ItemBytes") -> None:
        self._call = call
        self._size = 0
        self._is_over = False

    async def reserve(self, size: int) -> None:
        """Count more bytes, as soon as there is room for them."""
        if not self._is_over:
            await self._call.reserve(size)
            self._size += size

    def count(self, change: int) -> None:
        """Count more bytes, or fewer. Nothing counts once the item is over, as with calls."""
        if not self._is_over:
            self._call.count(change)
            self._size += change

    def free_bytes(self) -> None:
        """Count none of the item's bytes any more."""
        self.count(-self._size)
        self._is_over = True


_current: ContextVar[Admission | None] = ContextVar("admission", default=None)
_bytes: ContextVar[CallBytes | ItemBytes | None] = ContextVar("bytes", default=None)


async def reserve(size: int) -> None:
    """Count more bytes until the current call, or its item, ends, as soon as there is room for them.

    A decoded image may take hundreds of times the bytes of its file. Without a call nothing is counted.
    """
    await reserver()(size)


def reserver() -> Callable[[int], Awaitable[None]]:
    """Return what `reserve` is here: inside `one_item` it counts for what is around that."""
    account = _bytes.get()
    return _reserve_nothing if account is None else account.reserve


def release(size: int) -> None:
    """Release bytes that were reserved, before the current call, or its item, ends."""
    account = _bytes.get()
    if account is not None:
        account.count(-size)


@contextmanager
def one_item() -> Iterator[None]:
    """Release what is reserved inside, for one item of a list, once it and its threads are done."""
    account = _bytes.get()
    if account is None:
        yield
        return
    item = ItemBytes(account)
    token = _bytes.set(item)
    try:
        with holding(item.free_bytes):
            yield
    finally:
        _bytes.reset(token)


async def _reserve_nothing(size: int) -> None:
    pass


def weigh(amount: int, share: int) -> None:
    """Let the current call count as one call for each `share` of the amount of work that it asks for.

    Raises OverloadedError if the server has too many calls for that.
    """
    admission = _current.get()
    if admission is not None:
        admission.weigh(-(-amount // share))

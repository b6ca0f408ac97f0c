"""The bytes that calls hold from first to last: requests, decoded images, embeddings, answers."""

import asyncio
import bisect
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from gateway import metrics
from gateway.callers import Caller, Portions
from gateway.refusals import check_share, refuse


class ByteAccount:
    """Counts the bytes of all calls of one event loop.

    A call under way that needs more waits for it, the oldest call first. Amounts of at most `small_bytes`
    pass those who wait.
    """

    def __init__(self, max_bytes: int, small_bytes: int) -> None:
        self.bytes = Portions(max_bytes)
        self.answers = Portions(max_bytes)
        """Those of calls whose work is done."""
        self.small_bytes = small_bytes
        # The oldest call first.
        self.hungry: list[_Hungry] = []
        self.serial_numbers = itertools.count()

    def count(self, caller: Caller, change: int) -> None:
        """Count more bytes, or fewer."""
        self.bytes.take(caller, change)
        metrics.BYTES_IN_FLIGHT.inc(change)
        if change < 0:
            self.feed()

    def is_free(self, call: "CallBytes", size: int) -> bool:
        """Return whether a call may have more bytes now, although others may wait for some."""
        if not (self.has_share(call, size) and self.has_room(call, size)):
            return False
        return size <= self.small_bytes or not any(
            # Those of another caller that has its share wait for that caller alone.
            first.call.caller == call.caller or self.has_share(first.call, first.size)
            for first in self._first_hungry()
        )

    def has_room(self, call: "CallBytes", size: int) -> bool:
        """Return whether the server has so many more bytes for a call."""
        return _fits(call, size, self.bytes.taken, self.answers.taken, self.bytes.amount, self.hungry)

    def has_share(self, call: "CallBytes", size: int) -> bool:
        """Return whether a call's caller may have so many more bytes."""
        taken, answers = self.bytes.taken_by(call.caller), self.answers.taken_by(call.caller)
        hungry = [each for each in self.hungry if each.call.caller == call.caller]
        return _fits(call, size, taken, answers, self.bytes.most_for(call.caller), hungry)

    def feed(self) -> None:
        """Give bytes to the calls that wait for them, except for those of callers that have their share."""
        while True:
            ready = (each for each in self._first_hungry() if self.has_share(each.call, each.size))
            first = next(ready, None)
            if first is None or not self.has_room(first.call, first.size):
                return
            self.hungry.remove(first)
            first.turn.set_result(None)
            first.call.count(first.size)

    def _first_hungry(self) -> Iterator["_Hungry"]:
        """Yield of each caller that waits for bytes the oldest call that does."""
        seen: set[Caller] = set()
        for each in self.hungry:
            if not each.turn.cancelled() and each.call.caller not in seen:
                seen.add(each.call.caller)
                yield each


class CallBytes:
    """The bytes of one call, `size` in all."""

    def __init__(self, account: ByteAccount, caller: Caller) -> None:
        self._account = account
        self.caller = caller
        self.size = 0
        self.serial_number = next(account.serial_numbers)
        self._has_answer = False
        self._is_over = False

    def add(self, size: int) -> None:
        """Count the bytes of a message; raise OverloadedError if there is no room for them."""
        account = self._account
        if size > 0 and not account.is_free(self, size) and account.bytes.taken > self.size:
            if not account.has_share(self, size):
                check_share(account.bytes, self.caller, size, "bytes for calls")
            refuse(
                f"the server holds at most {account.bytes.amount} bytes for calls, and has nearly as many "
                "now",
                "bytes",
            )
        self.count(size)

    async def reserve(self, size: int) -> None:
        """Count more bytes, as soon as there is room for them."""
        account = self._account
        if self._is_over or account.is_free(self, size):
            self.count(size)
            return
        hungry = _Hungry(self, size, asyncio.get_running_loop().create_future())
        bisect.insort(account.hungry, hungry, key=lambda each: each.call.serial_number)
        account.feed()
        try:
            await hungry.turn
        except asyncio.CancelledError:
            if hungry.turn.cancelled():
                account.hungry.remove(hungry)
                account.feed()  # others may have waited behind it
            else:
                self.count(-size)  # its turn came in the same moment
            raise

    def count(self, change: int) -> None:
        """Count more bytes, or fewer.

        Nothing counts once the call is over. Work that it shares with other calls may go on after it.
        """
        if self._is_over or not change:
            return
        self.size += change
        if self._has_answer:
            self._account.answers.take(self.caller, change)
        self._account.count(self.caller, change)

    def hold_only(self, size: int) -> None:
        """Count so many bytes instead of all so far: the work is done, and only its answer is left."""
        self._has_answer = True
        self._account.answers.take(self.caller, self.size)
        self.count(size - self.size)

    def free_bytes(self) -> None:
        """Count none of the call's bytes any more."""
        self.count(-self.size)
        self._is_over = True


@dataclass(frozen=True, slots=True, eq=False)
class _Hungry:
    """A call that waits for bytes."""

    call: CallBytes
    size: int
    turn: asyncio.Future[None]


def _fits(call: CallBytes, size: int, taken: int, answers: int, most: int, hungry: list[_Hungry]) -> bool:
    """Return whether a call may have more bytes, of which calls have `taken` now, and `most` at most.

    One that is alone may: it has limits of its own. If all calls that have bytes wait for more, none would
    ever end. One of them then gets what it needs, as soon as it fits beside the answers that are left.
    """
    if taken == call.size or taken + size <= most:
        return True
    waiting = {each.call for each in hungry if not each.turn.cancelled()}
    working = taken - answers - sum(each.size for each in waiting)
    return call in waiting and not working and answers + call.size + size <= most

"""Limits on the calls a process answers and the bytes they hold.

A call beyond them is refused immediately; a queue would delay everybody.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NoReturn

from gateway import metrics
from gateway.errors import OverloadedError

# A random pause each: callers that are refused together should not come back together.
_MIN_RETRY_S, _MAX_RETRY_S = 0.5, 1.5


class Gate:
    """Counts the calls in flight and the bytes they hold. It belongs to one event loop."""

    def __init__(self, max_calls: int, max_bytes: int) -> None:
        self._max_calls = max_calls
        self._max_bytes = max_bytes
        self._calls = 0
        self._bytes = 0

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Keep the place of one call inside; raise OverloadedError if all places are taken."""
        if self._calls >= self._max_calls:
            _refuse(
                f"the server answers at most {self._max_calls} calls at a time, and has as many now", "calls"
            )
        self._calls += 1
        metrics.CALLS_IN_FLIGHT.inc()
        try:
            yield
        finally:
            self._calls -= 1
            metrics.CALLS_IN_FLIGHT.dec()

    @contextmanager
    def reserve(self, size: int) -> Iterator[None]:
        """Reserve the bytes of a call's request inside, and what the call adds to them by `reserve_more`.

        Raises OverloadedError if there is no room. A call that is alone always has room: what one call may
        bring has limits of its own.
        """
        reservation = _Reservation(self)
        reservation.add(size)
        token = _current.set(reservation)
        try:
            yield
        finally:
            _current.reset(token)
            reservation.release(reservation.size)

    def _add(self, size: int, reserved: int) -> None:
        """Count more bytes of a call that has `reserved` bytes so far."""
        of_others = self._bytes - reserved
        if size > 0 and of_others and self._bytes + size > self._max_bytes:
            _refuse(
                f"the server holds at most {self._max_bytes} bytes for calls, and has nearly as many now",
                "bytes",
            )
        self._bytes += size
        metrics.BYTES_IN_FLIGHT.inc(size)

    def _release(self, size: int) -> None:
        self._bytes -= size
        metrics.BYTES_IN_FLIGHT.dec(size)


class _Reservation:
    """The bytes of one call."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.size = 0

    def add(self, size: int) -> None:
        self._gate._add(size, self.size)
        self.size += size

    def release(self, size: int) -> None:
        self._gate._release(size)
        self.size -= size


_current: ContextVar[_Reservation | None] = ContextVar("reservation", default=None)


def reserve_more(size: int) -> None:
    """Reserve more bytes until the current call ends; raise OverloadedError if there is no room.

    A decoded image may take hundreds of times the bytes of its file. Without a call nothing is counted.
    """
    reservation = _current.get()
    if reservation is not None:
        reservation.add(size)


def release(size: int) -> None:
    """Release bytes that the current call reserved, before it ends."""
    reservation = _current.get()
    if reservation is not None:
        reservation.release(size)


def _refuse(message: str, reason: str) -> NoReturn:
    metrics.REFUSALS.labels(reason).inc()
    raise OverloadedError(message, retry_s=random.uniform(_MIN_RETRY_S, _MAX_RETRY_S))  # noqa: S311

"""How much a process takes on at once. What is more is refused at once: a queue would only make all wait."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NoReturn

from gateway import metrics
from gateway.errors import OverloadedError

# Callers that are refused together should not come back together.
_RETRY_S = 0.5, 1.5


class Gate:
    """Counts calls in flight and the bytes they hold; used from one event loop."""

    def __init__(self, max_calls: int, max_bytes: int) -> None:
        self._max_calls = max_calls
        self._max_bytes = max_bytes
        self._calls = 0
        self._bytes = 0

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Take the place of one call; raises OverloadedError where there is none."""
        if self._calls >= self._max_calls:
            _refuse(f"the server answers {self._max_calls} calls at once, and has as many", "calls")
        self._calls += 1
        metrics.CALLS_IN_FLIGHT.inc()
        try:
            yield
        finally:
            self._calls -= 1
            metrics.CALLS_IN_FLIGHT.dec()

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Take room for a request of so many bytes, and inside for what `hold_more` says it turns into.

        Raises OverloadedError where there is no room. A call that is alone always has it: what one call may
        bring has limits of its own.
        """
        held = _Held(self)
        try:
            held.change(size)
            token = _held.set(held)
            try:
                yield
            finally:
                _held.reset(token)
        finally:
            held.change(-held.size)

    def change(self, held: int, by: int) -> None:
        """Count more, or less, bytes for a call that has `held` so far."""
        others = self._bytes - held
        if by > 0 and others and self._bytes + by > self._max_bytes:
            _refuse(
                f"the server holds {self._max_bytes} bytes for calls at once, and has nearly as many", "bytes"
            )
        self._bytes += by
        metrics.BYTES_IN_FLIGHT.inc(by)


class Memory:
    """Bytes that worker threads share for what they do at a time: who finds too few left waits."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._taken = 0
        self._freed = threading.Condition()

    @contextmanager
    def take(self, size: int) -> Iterator[None]:
        """Have so many bytes, or all of them where that is more."""
        size = min(size, self._max_bytes)
        with self._freed:
            self._freed.wait_for(lambda: self._taken + size <= self._max_bytes)
            self._taken += size
        try:
            yield
        finally:
            with self._freed:
                self._taken -= size
                self._freed.notify_all()


class _Held:
    """The bytes of one call."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.size = 0

    def change(self, by: int) -> None:
        self._gate.change(self.size, by)
        self.size += by


_held: ContextVar[_Held | None] = ContextVar("held", default=None)


def hold_more(size: int) -> None:
    """Take room for so many bytes until the current call ends; raises OverloadedError where there is none.

    A compressed image may take hundreds of times its file. Negative where they are let go before.
    """
    held = _held.get()
    if held is not None:
        held.change(size)


def _refuse(message: str, reason: str) -> NoReturn:
    metrics.REFUSALS.labels(reason).inc()
    raise OverloadedError(message, retry_s=random.uniform(*_RETRY_S))  # noqa: S311

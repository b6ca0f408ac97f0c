"""How much a process takes on at once. What is more is refused at once: a queue would only make all wait."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

from gateway import metrics
from gateway.errors import OverloadedError

# Callers that are refused together should not come back together.
_RETRY_S = 0.5, 1.5


class Gate:
    """Counts calls in flight and the bytes of their requests; used from one event loop."""

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
        """Take room for a request of so many bytes; raises OverloadedError where there is none.

        A single request always fits: its size has a limit of its own.
        """
        if self._bytes and self._bytes + size > self._max_bytes:
            _refuse(
                f"the server holds requests of {self._max_bytes} bytes at once, and has nearly as many",
                "bytes",
            )
        self._bytes += size
        metrics.BYTES_IN_FLIGHT.inc(size)
        try:
            yield
        finally:
            self._bytes -= size
            metrics.BYTES_IN_FLIGHT.dec(size)


def _refuse(message: str, reason: str) -> None:
    metrics.REFUSALS.labels(reason).inc()
    raise OverloadedError(message, retry_s=random.uniform(*_RETRY_S))  # noqa: S311

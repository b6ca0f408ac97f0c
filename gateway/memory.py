"""Memory that threads share."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Memory:
    """A number of bytes that worker threads share. A thread waits until enough of them are free."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._reserved = 0
        self._released = threading.Condition()

    @contextmanager
    def reserve(self, size: int) -> Iterator[None]:
        """Reserve so many bytes inside, or all that exist if that is less."""
        size = min(size, self._max_bytes)
        with self._released:
            self._released.wait_for(lambda: self._reserved + size <= self._max_bytes)
            self._reserved += size
        try:
            yield
        finally:
            with self._released:
                self._reserved -= size
                self._released.notify_all()

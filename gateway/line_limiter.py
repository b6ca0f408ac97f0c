"""A limit on lines of the log that others can cause."""

import threading
import time
from collections.abc import Callable


class LineLimiter:
    """Admits the first lines of each period. `tell` gets the number of the others, soon after the period.

    Any thread may ask. `tell` is called in the thread that asks next, or in one of its own if nobody does.
    """

    def __init__(self, max_lines: int, period_s: float, tell: Callable[[int], None]) -> None:
        self._max_lines = max_lines
        self._period_s = period_s
        self._tell = tell
        self._lock = threading.Lock()
        self._end_s = 0.0
        self._admitted = self._omitted = 0

    def admit(self) -> bool:
        """Return whether there may be a line now."""
        now = time.monotonic()
        if now >= self._end_s:
            self.flush()
        with self._lock:
            if now >= self._end_s:
                self._end_s, self._admitted = now + self._period_s, 0
            if self._admitted < self._max_lines:
                self._admitted += 1
                return True
            self._omitted += 1
            if self._omitted == 1:
                timer = threading.Timer(self._end_s - now, self.flush)
                timer.daemon = True
                timer.start()
            return False

    def flush(self) -> None:
        """Tell now how many lines were omitted."""
        with self._lock:
            omitted, self._omitted = self._omitted, 0
        if omitted:
            self._tell(omitted)

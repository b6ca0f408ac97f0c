"""Signals that end a command's work in order: what is under way is finished first."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from visiongate_command import end_at_once, handle_stop_signals

# Work that has not asked for so long is in no state to stop in order, or has not begun.
_ASKS_EVERY_S = 2.0


class Stop:
    """Whether a signal has asked to stop, for work that asks for it again and again.

    A first signal is for the work to see. If it does not ask, and at a second signal, SystemExit is raised
    where the main thread is. A third ends the process.
    """

    def __init__(self) -> None:
        self.signal = 0
        """The signal, 0 before there is one."""
        self._asked_s = float("-inf")
        self._count = 0

    def is_requested(self) -> bool:
        """Return whether to stop. It is to be called some times a second."""
        self._asked_s = time.monotonic()
        return self.signal != 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        self.signal = self.signal or number
        if self._count > 2:
            end_at_once(number, frame)
        elif self._count == 2 or time.monotonic() - self._asked_s > _ASKS_EVERY_S:
            raise SystemExit(128 + number)


@contextmanager
def stop_in_order() -> Iterator[Stop]:
    """Lend what says whether a signal has asked to stop. Outside, signals do what they did before."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may handle signals.
        yield stop
        return
    earlier = handle_stop_signals(stop)
    try:
        yield stop
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)

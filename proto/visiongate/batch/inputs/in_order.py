"""Access to what can only be read from start to end."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Generator
from typing import Generic, TypeVar

V = TypeVar("V")

# Readers that are not asked any more would keep files and decoders open.
_MAX_OPEN = 4
_open: "OrderedDict[InOrder[object], None]" = OrderedDict()
_open_lock = threading.Lock()


class InOrder(Generic[V]):
    """Values that come one after another, for threads that ask for them in about that order, at any time.

    begin: yields numbers, which rise, and values, from the number it is given on, or from an earlier one.
    kept: how many values are in memory: as many as threads may ask for at once. A value that is not among
    them, and was passed, is begun for anew, which takes its time but is right.
    is_far: whether it is quicker to begin anew than to go on, from the number that comes next to a later one.
    """

    def __init__(
        self,
        begin: Callable[[int], Generator[tuple[int, V], None, None]],
        kept: int,
        is_far: Callable[[int, int], bool] = lambda next, number: False,
    ) -> None:
        self._begin = begin
        self._max_kept = kept
        self._is_far = is_far
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, V] = OrderedDict()
        self._values: Generator[tuple[int, V], None, None] | None = None
        self._next = 0

    def get(self, number: int) -> V:
        """Return the value of a number. Raise LookupError if there is none, and what `begin` raises."""
        with self._lock:
            if number in self._kept:
                return self._kept[number]
            if self._values is None or number < self._next or self._is_far(self._next, number):
                self._close()
                self._values = self._begin(number)
            self._keep_open()
            try:
                for at, value in self._values:
                    self._next = at + 1
                    self._kept[at] = value
                    if len(self._kept) > self._max_kept:
                        self._kept.popitem(last=False)
                    if at >= number:
                        break
            except BaseException:
                self._close()
                raise
            if number in self._kept:
                return self._kept[number]
            self._close()
            raise LookupError(number)

    def _close(self) -> None:
        self._kept.clear()
        if self._values is not None:
            self._values.close()
            self._values = None

    def _keep_open(self) -> None:
        """Close what was not asked for the longest, unless it is being read."""
        with _open_lock:
            _open[self] = None  # type: ignore[index]
            _open.move_to_end(self)  # type: ignore[arg-type]
            for other in list(_open)[:-_MAX_OPEN]:
                if other._lock.acquire(blocking=False):
                    other._close()
                    other._lock.release()
                    del _open[other]

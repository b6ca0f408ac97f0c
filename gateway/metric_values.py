"""The numbers behind Prometheus' metrics: those of this process alone, and which of them have changed."""

import threading
from collections.abc import Callable, Sequence

from prometheus_client import disable_created_metrics, values

Labels = tuple[tuple[str, str], ...]
Series = tuple[str, str, Labels]


class Value:
    """A number of a metric, as prometheus_client wants it. It notes that it has changed.

    series: the metric's name, the sample's, and its labels. mode: how the values of several processes become
    one, for a gauge; empty for what is added up. is_gone: there is no such series any more. is_told: it was
    among changes.
    """

    def __init__(
        self,
        kind: str,
        metric: str,
        sample: str,
        names: Sequence[str],
        labels: Sequence[str],
        documentation: str,
        multiprocess_mode: str = "",
    ) -> None:
        self.series: Series = (metric, sample, tuple(zip(names, labels, strict=True)))
        self.mode = multiprocess_mode
        self.is_gone = self.is_told = False
        self._value = 0.0
        self._lock = threading.Lock()
        VALUES.append(self)
        _changed[self] = None

    def inc(self, amount: float) -> None:
        """Add to the number."""
        with self._lock:
            self._value += amount
        _changed[self] = None

    def set(self, value: float, timestamp: float | None = None) -> None:
        """Replace the number."""
        with self._lock:
            self._value = value
        _changed[self] = None

    def get(self) -> float:
        """Return the number."""
        return self._value

    def get_exemplar(self) -> None:
        """Return none: there are no exemplars."""


VALUES: list[Value] = []
"""All that there are."""
# Those that have changed since `take_changes`.
_changed: dict[Value, None] = {}


def take_changes() -> list[Value]:
    """Return what has changed since the last call, at the first everything: for one reader only."""
    changed = []
    while _changed:
        number = _changed.popitem()[0]
        number.is_told = True
        changed.append(number)
    return changed[::-1]


def drop(is_gone: Callable[[Series], bool]) -> None:
    """Forget the numbers of some series, which their metrics have removed."""
    for number in [number for number in VALUES if is_gone(number.series)]:
        VALUES.remove(number)
        number.is_gone = True
        if number.is_told:
            _changed[number] = None
        else:
            _changed.pop(number, None)


# prometheus_client's own would write to files if the environment names a folder, which is another program's.
values.ValueClass = Value
# When a counter was created is of no use, and doubles the number of series.
disable_created_metrics()

"""How far a job is: its rate, when it will be done, and which stage the others wait for."""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from visiongate.batch.columns import OK

# Rate and stage are those of so many last seconds.
_WINDOW_S = 10.0
_SAMPLE_S = 0.5
# Writing is what limits a job if it has no pause to speak of.
_NO_PAUSE = 0.9

READING, SERVER, WRITING = "reading the inputs", "the server", "writing the rows"
"""The stages of a job, any of which may be the one that the others wait for."""


class Stopwatch:
    """Adds up the time inside `with`. Threads that are inside at the same time each add theirs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._total_s = 0.0
        self._since_s = 0.0

    def __enter__(self) -> None:
        self._change(1)

    def __exit__(self, *_: object) -> None:
        self._change(-1)

    @property
    def seconds(self) -> float:
        """The time until now, also of those who are still inside."""
        return self._change(0)

    def _change(self, count: int) -> float:
        with self._lock:
            now = time.monotonic()
            self._total_s += self._count * (now - self._since_s)
            self._since_s = now
            self._count += count
            return self._total_s


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is.

    rows: those of this run, failed ones too. failed: their number by status. skipped: rows that earlier runs
    made. total: of all three, None if it is not known (yet). rate: rows a second, lately. left_s: the seconds
    that the rest takes at this rate, None if there is no telling. limit: the stage that the others wait for,
    empty before there is anything to tell. lost: how many servers take no more part. seconds: since the job
    began.
    """

    rows: int = 0
    failed: Mapping[str, int] = field(default_factory=dict)
    skipped: int = 0
    total: int | None = None
    rate: float = 0.0
    left_s: float | None = None
    limit: str = ""
    lost: int = 0
    seconds: float = 0.0

    @property
    def failures(self) -> int:
        return sum(self.failed.values())

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON holds."""
        return {
            "rows": self.rows,
            "failed": dict(self.failed),
            "skipped": self.skipped,
            "total": self.total,
            "rate": round(self.rate, 2),
            "left_s": None if self.left_s is None else round(self.left_s, 1),
            "limit": self.limit,
            "lost": self.lost,
            "seconds": round(self.seconds, 1),
        }


@dataclass(frozen=True, slots=True)
class Stages:
    """What tells which stage limits a job: how long servers waited for inputs, inputs for a server, and how
    long rows were written.
    """

    starved: Stopwatch
    busy: Stopwatch
    writing: Stopwatch
    servers: int

    def times(self) -> tuple[float, float, float]:
        """Return the seconds of each so far; those of several servers are their mean."""
        return self.starved.seconds / self.servers, self.busy.seconds, self.writing.seconds


class Meter:
    """Counts the rows of a job. One thread uses it, and `total` may be set by another."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start = clock()
        self._statuses: Counter[str] = Counter()
        self._samples: deque[tuple[float, int, tuple[float, float, float]]] = deque()
        self.rows = 0
        self.skipped = self.lost = 0
        self.total: int | None = None
        self.stages: Stages | None = None

    def add(self, status: str) -> None:
        """Count a row."""
        self.rows += 1
        self._statuses[status] += 1

    @property
    def failed(self) -> dict[str, int]:
        return {status: count for status, count in sorted(self._statuses.items()) if status != OK}

    @property
    def seconds(self) -> float:
        return self._clock() - self._start

    def progress(self) -> Progress:
        """Take a measurement."""
        now = self._clock()
        times = self.stages.times() if self.stages is not None else (0.0, 0.0, 0.0)
        if not self._samples or now - self._samples[-1][0] >= _SAMPLE_S:
            self._samples.append((now, self.rows, times))
        while len(self._samples) > 2 and now - self._samples[1][0] >= _WINDOW_S:
            self._samples.popleft()
        then, rows, before = self._samples[0]
        span = now - then
        rate = (self.rows - rows) / span if span > 0 else 0.0
        left = None if self.total is None else max(0, self.total - self.rows - self.skipped)
        return Progress(
            rows=self.rows,
            failed=self.failed,
            skipped=self.skipped,
            total=self.total,
            rate=rate,
            left_s=left / rate if left is not None and rate > 0 else None,
            limit=_limit(span, tuple(b - a for a, b in zip(before, times, strict=True))),
            lost=self.lost,
            seconds=now - self._start,
        )


def _limit(span: float, times: tuple[float, ...]) -> str:
    """Return the stage that limits, by the seconds of `Stages.times` within a span."""
    starved, busy, writing = times
    if span <= 0 or not any(times):
        return ""
    if writing > _NO_PAUSE * span:
        return WRITING
    return READING if starved > busy else SERVER

"""Times of one call, and the file that results are added to."""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LEAST_RUNS = 5
MOST_RUNS = 2000


def timed(call: Callable[[], object], seconds: float) -> dict[str, Any]:
    """Return figures of a call that returns when the device is done, repeated for about so many seconds.

    The first run is told apart: libraries load and choose their kernels in it. ms is the median.
    """
    start = time.perf_counter()
    call()
    first = time.perf_counter() - start
    for _ in range(2):
        call()
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < LEAST_RUNS or (time.perf_counter() < end and len(taken) < MOST_RUNS):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    taken.sort()
    return {
        "ms": statistics.median(taken) * 1e3,
        "ms_10": taken[len(taken) // 10] * 1e3,
        "ms_90": taken[len(taken) * 9 // 10] * 1e3,
        "first_ms": first * 1e3,
        "runs": len(taken),
    }


def add(results: Path, **entry: Any) -> None:
    """Add a line to the results. It is on disk when this returns, whatever ends the run."""
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def read(results: Path) -> list[dict[str, Any]]:
    """Return the entries; a last line that was cut off is left out."""
    entries = []
    for line in results.read_text(encoding="utf-8").splitlines():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return entries

"""What a fault has cost those who call, as a row of a table and for programs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from hosts.cluster import Counted
from hosts.load import WAYS, Call
from hosts.parts import Series

SLOW_S = 1.5
"""A call that takes longer, or fails, is one that the fault has cost something."""
HEADER = ("fault", "calls", "failed", "repeated by edge", "by gateways", "slowest s", "well after s")


@dataclass(frozen=True)
class Report:
    """What a fault has cost.

    failed: the calls that failed, by way and by what was said. well_after_s: seconds from the fault until the
    last call had ended that it cost something.
    """

    fault: str
    calls: dict[str, int]
    failed: dict[str, dict[str, int]]
    repeated_by_edge: int
    repeated_by_gateways: int
    slowest_s: dict[str, float]
    well_after_s: float

    def row(self) -> tuple[str, ...]:
        return (
            self.fault,
            str(sum(self.calls.values())),
            str(sum(sum(said.values()) for said in self.failed.values())),
            str(self.repeated_by_edge),
            str(self.repeated_by_gateways),
            f"{max(self.slowest_s.values()):.1f}",
            f"{self.well_after_s:.1f}",
        )


def report(fault: str, begun_s: float, calls: Sequence[Call], before: Counted, after: Counted) -> Report:
    """Return the report of a fault that began at a moment, of the calls that have ended since."""
    failed: dict[str, Counter[str]] = {}
    for call in calls:
        if call.has_failed:
            failed.setdefault(call.way, Counter())[call.outcome] += 1
    costly = [call.end_s - begun_s for call in calls if call.has_failed or call.seconds > SLOW_S]
    by_way = {way: [call for call in calls if call.way == way] for way in WAYS}
    gateways = zip(before.gateways, after.gateways, strict=True)
    return Report(
        fault,
        {way: len(made) for way, made in by_way.items()},
        {way: dict(said) for way, said in failed.items()},
        round(grown(before.edge, after.edge, "envoy_cluster_upstream_rq_retry{", '"gateway-')),
        round(sum(grown(*pair, "visiongate_triton_retries_total{") for pair in gateways)),
        {way: max((call.seconds for call in made), default=0.0) for way, made in by_way.items()},
        max(costly, default=0.0),
    )


def grown(before: Series, after: Series, *parts: str) -> float:
    """Return by how much the counters grew whose series have all these parts. One may have begun anew."""
    return sum(
        value - (before.get(name, 0.0) if before.get(name, 0.0) <= value else 0.0)
        for name, value in after.items()
        if all(part in name for part in parts)
    )


def imbalance(counts: Sequence[float]) -> float:
    """Return how far from the mean the farthest is, as a share of the mean."""
    mean = sum(counts) / len(counts)
    return max(abs(count - mean) for count in counts) / mean if mean else 1.0


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as lines, the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            text.rjust(width) if number else text.ljust(width)
            for number, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )

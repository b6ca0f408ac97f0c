"""What a round of load gave, and what several rounds say together."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

PERCENTILES = (0.5, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Round:
    """Calls of one round. seconds: from the first call's start to the last answer.

    client_cpu_s: CPU seconds of the load generator. Latencies are in seconds; NaN if no call was answered.
    """

    calls: int
    items: int
    errors: int
    seconds: float
    client_cpu_s: float
    p50_s: float
    p95_s: float
    p99_s: float
    first_error: str = ""

    @classmethod
    def of(
        cls,
        latencies_s: Sequence[float],
        items_a_call: int,
        seconds: float,
        client_cpu_s: float,
        errors: Sequence[str] = (),
    ) -> Self:
        """Sum up the answered calls' latencies, and the errors of the others."""
        ordered = sorted(latencies_s)
        p50, p95, p99 = (percentile(ordered, share) for share in PERCENTILES)
        calls = len(ordered)
        first_error = errors[0] if errors else ""
        return cls(
            calls, calls * items_a_call, len(errors), seconds, client_cpu_s, p50, p95, p99, first_error
        )

    @property
    def items_a_second(self) -> float:
        return self.items / self.seconds if self.seconds > 0 else 0.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        return cls(**{field.name: values[field.name] for field in fields(cls)})


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of the ordered values does not exceed."""
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def median(values: Sequence[float]) -> float:
    """Return the median of the values that are numbers; NaN for none."""
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else math.nan


@dataclass(frozen=True, slots=True)
class Summary:
    """Medians of several rounds. cpu_s_an_item: by whose processes; empty where nobody could look."""

    items_a_second: float
    p50_s: float
    p95_s: float
    p99_s: float
    errors: int
    first_error: str
    cpu_s_an_item: Mapping[str, float]

    @classmethod
    def of(cls, rounds: Sequence[Round], cpu_s: Sequence[Mapping[str, float]] = ()) -> Self:
        """Sum up rounds. cpu_s: for each round the CPU seconds by whose processes, the client's own apart."""
        shares: dict[str, list[float]] = {}
        for index, each in enumerate(rounds):
            others = cpu_s[index] if index < len(cpu_s) else {}
            for name, seconds in {"client": each.client_cpu_s, **others}.items():
                shares.setdefault(name, []).append(seconds / each.items if each.items else math.nan)
        return cls(
            median([each.items_a_second for each in rounds]),
            median([each.p50_s for each in rounds]),
            median([each.p95_s for each in rounds]),
            median([each.p99_s for each in rounds]),
            sum(each.errors for each in rounds),
            next((each.first_error for each in rounds if each.first_error), ""),
            {name: median(values) for name, values in shares.items()},
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

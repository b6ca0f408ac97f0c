"""The samples of a gateway's /metrics, and what happened between two scrapes of them."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

# (name of the sample, labels, value)
Sample = tuple[str, Mapping[str, str], float]


class Samples:
    """The samples of one scrape. Metrics that a server does not have are empty."""

    def __init__(self, time_s: float, samples: Iterable[Sample]) -> None:
        self.time_s = time_s
        self._by_name: dict[str, list[tuple[Mapping[str, str], float]]] = defaultdict(list)
        for name, labels, value in samples:
            self._by_name[name].append((labels, value))

    @classmethod
    def parse(cls, time_s: float, text: str) -> "Samples":
        """Read Prometheus' text format; raise ValueError if it is something else."""
        families = text_string_to_metric_families(text)
        return cls(
            time_s,
            [(sample.name, sample.labels, sample.value) for family in families for sample in family.samples],
        )

    def has(self, prefix: str) -> bool:
        return any(name.startswith(prefix) for name in self._by_name)

    def labels(self, name: str) -> list[Mapping[str, str]]:
        """Return the labels of each sample of that name."""
        return [labels for labels, _ in self._by_name.get(name, ())]

    def value(self, name: str) -> float | None:
        """Return the sum of all samples of that name; None if there is none."""
        values = [value for _, value in self._by_name.get(name, ())]
        return sum(values) if values else None

    def by(self, name: str, *keys: str) -> dict[tuple[str, ...], float]:
        """Return sums by the values of these labels. Samples that lack one of them do not count."""
        sums: dict[tuple[str, ...], float] = defaultdict(float)
        for labels, value in self._by_name.get(name, ()):
            if all(key in labels for key in keys):
                sums[tuple(labels[key] for key in keys)] += value
        return dict(sums)


@dataclass(frozen=True, slots=True)
class Change:
    """What happened between two scrapes."""

    before: Samples
    after: Samples

    @property
    def seconds(self) -> float:
        return self.after.time_s - self.before.time_s

    def growth(self, name: str, *keys: str) -> dict[tuple[str, ...], float]:
        """Return by how much counters grew, in sums by the values of these labels.

        A counter that fell was started anew with its process: it grew by what it has.
        """
        before = self.before.by(name, *keys)
        return {
            key: value - before.get(key, 0.0) if value >= before.get(key, 0.0) else value
            for key, value in self.after.by(name, *keys).items()
        }

    def rates(self, name: str, *keys: str) -> dict[tuple[str, ...], float]:
        """Return the same, per second."""
        return {key: value / self.seconds for key, value in self.growth(name, *keys).items()}

    def quantile(self, name: str, share: float, **labels: str) -> float:
        """Return a quantile of a histogram over what came between: NaN for nothing.

        It lies between the bounds of a bucket, as Prometheus has it, and is infinite beyond the last bound.
        """
        keys = (*labels, "le")
        buckets = sorted(
            (float(bound), count)
            for (*values, bound), count in self.growth(f"{name}_bucket", *keys).items()
            if values == list(labels.values())
        )
        if not buckets or not buckets[-1][1]:
            return math.nan
        wanted = share * buckets[-1][1]
        lower, below = 0.0, 0.0
        for bound, count in buckets:
            if count >= wanted:
                if math.isinf(bound):
                    return bound
                return (
                    lower + (bound - lower) * (wanted - below) / (count - below) if count > below else bound
                )
            lower, below = bound, count
        return math.inf

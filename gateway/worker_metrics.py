"""The metrics of several worker processes as one: workers report what has changed, and their parent adds up.

Counters and histograms are the sum over all workers that live or have lived: they never fall when one dies.
What a worker counted in its last second is lost if it is killed. Gauges are of the workers that live.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, get_args

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from gateway.metric_values import VALUES, Labels, Series, take_changes

# How a worker came to be replaced.
Reason = Literal["exit", "signal", "silent"]

# What a gauge's values in several workers become, by its multiprocess_mode. All else is added up.
_COMBINED: dict[str, Callable[[Iterable[float]], float]] = {"livemin": min, "livemax": max}


def changes() -> list[Any]:
    """Return what has changed of this process's metrics since the last call, for JSON."""
    return [[*value.series, value.mode, None if value.is_gone else value.get()] for value in take_changes()]


@dataclass
class _Worker:
    pid: int
    answers: bool = False
    values: dict[Series, float] = field(default_factory=dict)


class WorkerMetrics(Collector):
    """What the parent of worker processes knows of them. They have the numbers 1 to `wanted`. Thread-safe."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._workers: dict[int, _Worker] = {}
        self._of_dead: defaultdict[Series, float] = defaultdict(float)
        self._modes: dict[str, str] = {}
        self._restarts: dict[Reason, int] = dict.fromkeys(get_args(Reason), 0)
        self._lock = threading.Lock()
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def born(self, number: int, pid: int) -> None:
        """Note that a worker lives."""
        with self._lock:
            self._workers[number] = _Worker(pid)

    def answers(self, number: int) -> None:
        """Note that a worker answers calls. Before, it is not asked whether it is ready."""
        with self._lock:
            self._workers[number].answers = True

    def update(self, number: int, changes: Iterable[Any]) -> None:
        """Take over what a worker reports: its `changes`."""
        with self._lock:
            values = self._workers[number].values
            for metric, sample, labels, mode, value in changes:
                series = metric, sample, tuple(map(tuple, labels))
                if value is None:
                    values.pop(series, None)
                    self._of_dead.pop(series, None)
                else:
                    values[series] = value
                    self._modes[metric] = mode

    def died(self, number: int) -> None:
        """Drop what a worker said of its state. What it counted stays."""
        with self._lock:
            for series, value in self._workers.pop(number).values.items():
                if not self._modes[series[0]]:
                    self._of_dead[series] += value

    def restarted(self, reason: Reason) -> None:
        """Count a worker that is replaced."""
        with self._lock:
            self._restarts[reason] += 1

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            values = self._added_up()
            pids = {str(number): worker.pid for number, worker in self._workers.items()}
            restarts = dict(self._restarts)
        for metric in REGISTRY.collect():
            if metric.name in values:
                total = Metric(metric.name, metric.documentation, metric.type)
                add = _add_histogram if metric.type == "histogram" else _add_numbers
                add(total, values[metric.name])
                yield total
        yield GaugeMetricFamily("visiongate_workers", "Worker processes that live.", len(pids))
        yield GaugeMetricFamily(
            "visiongate_workers_wanted", "Worker processes that there should be.", self._wanted
        )
        counter = CounterMetricFamily(
            "visiongate_worker_restarts",
            "Worker processes that were replaced: after an exit, by a signal, or as they stood still.",
            labels=["reason"],
        )
        for reason, count in restarts.items():
            counter.add_metric([reason], count)
        yield counter
        yield from _process_metrics({"parent": "self", **pids})

    def _added_up(self) -> dict[str, dict[Series, float]]:
        """Return the values of all series, by metric."""
        # The parent's own are those that exist from the start. It counts nothing.
        own = {value.series: value.get() for value in VALUES}
        found: dict[Series, list[float]] = {series: [] for series in own}
        for series, value in self._of_dead.items():
            found.setdefault(series, []).append(value)
        for worker in self._workers.values():
            for series, value in worker.values.items():
                # One that does not answer yet has no say in the least.
                if worker.answers or self._modes[series[0]] != "livemin":
                    found.setdefault(series, []).append(value)
        result: defaultdict[str, dict[Series, float]] = defaultdict(dict)
        for series, each in found.items():
            combine = _COMBINED.get(self._modes.get(series[0], ""), sum)
            result[series[0]][series] = combine(each) if each else own[series]
        return result


def _add_numbers(metric: Metric, values: dict[Series, float]) -> None:
    for (_, sample, labels), value in values.items():
        metric.add_sample(sample, dict(labels), value)


def _add_histogram(metric: Metric, values: dict[Series, float]) -> None:
    """Add a histogram's samples. A value counts one bucket alone, a sample those below it as well."""
    sums: dict[Labels, float] = {}
    buckets: defaultdict[Labels, list[tuple[tuple[str, str], float]]] = defaultdict(list)
    for (_, sample, labels), value in values.items():
        if sample.endswith("_sum"):
            sums[labels] = value
        else:
            *others, edge = labels
            buckets[tuple(others)].append((edge, value))
    for labels, each in buckets.items():
        total = 0.0
        # A thread that reports while another adds a series may take its buckets in any order.
        for edge, value in sorted(each, key=lambda bucket: float(bucket[0][1])):
            total += value
            metric.add_sample(f"{metric.name}_bucket", dict([*labels, edge]), total)
        metric.add_sample(f"{metric.name}_count", dict(labels), total)
        metric.add_sample(f"{metric.name}_sum", dict(labels), sums[labels])


def _process_metrics(pids: dict[str, int | str]) -> Iterator[Metric]:
    """Yield the process_… metrics of several processes, with a label that names them."""
    metrics: dict[str, Metric] = {}
    for worker, pid in pids.items():
        for found in ProcessCollector(pid=partial(str, pid), registry=None).collect():
            metric = metrics.setdefault(found.name, Metric(found.name, found.documentation, found.type))
            for sample in found.samples:
                metric.add_sample(sample.name, {"worker": worker, **sample.labels}, sample.value)
    yield from metrics.values()

"""Real processes count and report, as workers do; what their parent makes of it."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from prometheus_client import Counter, parser
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics_parser

from gateway import metrics
from gateway.services.registry import SERVICES
from gateway.worker_metrics import WorkerMetrics, changes

DETECT = "/visiongate.v1.DetectionService/DetectObjects"


class Worker:
    """A process that runs code, and then reports."""

    def __init__(self) -> None:
        program = (
            "import sys, json; from gateway import metrics; from gateway.worker_metrics import changes\n"
            "for line in sys.stdin: exec(line); print(json.dumps(changes()), flush=True)\n"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def report(self, code: str) -> Any:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(code + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.fixture
def workers() -> Iterator[tuple[Worker, Worker]]:
    both = Worker(), Worker()
    yield both
    for worker in both:
        assert worker.process.stdin
        assert worker.process.stdout
        worker.process.stdin.close()
        worker.process.wait()
        worker.process.stdout.close()


def parent_of(*workers: Worker) -> WorkerMetrics:
    parent = WorkerMetrics(len(workers))
    for number, worker in enumerate(workers, 1):
        parent.born(number, worker.process.pid)
    return parent


def value(parent: WorkerMetrics, name: str, **labels: str) -> float | None:
    return parent.registry.get_sample_value(name, labels)


def test_workers_are_added_up(workers: tuple[Worker, Worker]) -> None:
    parent = parent_of(*workers)
    for number, worker in enumerate(workers, 1):
        parent.update(
            number,
            worker.report(
                f"metrics.CALLS.labels('{DETECT}', 'OK', '', 'none').inc(2); metrics.CALLS_IN_FLIGHT.inc();"
                "metrics.CACHE_BYTES.labels('image').set(100);"
                "metrics.STAGE_SECONDS.labels('decode').observe(1);"
                f"metrics.CERTIFICATE_EXPIRY.labels('a').set({number}); metrics.MAX_CALLS_IN_FLIGHT.set(64)"
            ),
        )
        parent.answers(number)
    assert value(parent, "visiongate_calls_total", method=DETECT, code="OK", reason="", fault="none") == 4
    assert value(parent, "visiongate_calls_in_flight") == 2
    assert value(parent, "visiongate_max_calls_in_flight") == 128
    assert value(parent, "visiongate_cache_bytes", cache="image") == 200
    assert value(parent, "visiongate_stage_seconds_count", stage="decode") == 2
    assert value(parent, "visiongate_stage_seconds_bucket", stage="decode", le="0.5") == 0
    assert value(parent, "visiongate_stage_seconds_bucket", stage="decode", le="+Inf") == 2
    assert value(parent, "visiongate_certificate_expiry_seconds", file="a") == 1
    (build,) = [each for each in parent.collect() if each.name == "visiongate_build_info"]
    assert [sample.value for sample in build.samples] == [1]


def test_only_what_has_changed_is_reported(workers: tuple[Worker, Worker]) -> None:
    worker, _ = workers
    assert len(worker.report("pass")) > 100
    assert worker.report("pass") == []
    (change,) = worker.report("metrics.REFUSALS.labels('calls').inc()")
    assert change == ["visiongate_refusals", "visiongate_refusals_total", [["reason", "calls"]], "", 1]


def test_counters_outlive_workers_and_gauges_do_not(workers: tuple[Worker, Worker]) -> None:
    first, second = workers
    parent = parent_of(first, second)

    def seen() -> tuple[float | None, ...]:
        return (
            value(parent, "visiongate_refusals_total", reason="calls"),
            value(parent, "visiongate_stage_seconds_count", stage="decode"),
            value(parent, "visiongate_calls_in_flight"),
        )

    work = "metrics.REFUSALS.labels('calls').inc(5); metrics.CALLS_IN_FLIGHT.inc(3);"
    parent.update(1, first.report(work + "metrics.STAGE_SECONDS.labels('decode').observe(1)"))
    assert seen() == (5, 1, 3)
    parent.died(1)
    assert seen() == (5, 1, 0)
    # Another process with the same number begins at 0.
    parent.born(1, second.process.pid)
    assert seen() == (5, 1, 0)
    parent.update(1, second.report(work))
    assert seen() == (10, 1, 3)
    parent.died(1)
    assert seen() == (10, 1, 0)


def test_ready_is_the_least_of_the_workers_that_answer() -> None:
    parent = WorkerMetrics(2)

    def readiness() -> bool | None:
        return metrics.readiness(parent.registry).get("a")

    def told(ready: int) -> list[Any]:
        return [["visiongate_ready", "visiongate_ready", [["grpc_service", "a"]], "livemin", ready]]

    parent.born(1, os.getpid())
    parent.update(1, told(1))
    assert not readiness()
    parent.answers(1)
    assert readiness()
    # A second one starts.
    parent.born(2, os.getpid())
    parent.update(2, told(0))
    assert readiness()
    parent.answers(2)
    assert readiness() is False
    parent.update(2, told(1))
    assert readiness()
    parent.died(1)
    assert readiness()
    parent.died(2)
    assert not readiness()


def test_what_exists_from_the_start_is_there_without_workers() -> None:
    assert SERVICES
    parent = WorkerMetrics(2)
    assert value(parent, "visiongate_refusals_total", reason="calls") is not None
    assert value(parent, "visiongate_request_bytes_total", method=DETECT) is not None


def test_workers_are_counted() -> None:
    parent = WorkerMetrics(2)

    def counted() -> tuple[float | None, ...]:
        return value(parent, "visiongate_workers"), value(parent, "visiongate_workers_wanted")

    assert counted() == (0, 2)
    parent.born(1, os.getpid())
    parent.born(2, os.getpid())
    assert counted() == (2, 2)
    parent.died(1)
    assert counted() == (1, 2)
    reasons = ("exit", "signal", "silent")
    parent.restarted("signal")
    restarts = [value(parent, "visiongate_worker_restarts_total", reason=reason) for reason in reasons]
    assert restarts == [0, 1, 0]


def test_processes_are_measured_each_by_itself(workers: tuple[Worker, Worker]) -> None:
    parent = parent_of(*workers)
    for worker in ("parent", "1", "2"):
        for name in (
            "cpu_seconds_total",
            "resident_memory_bytes",
            "open_fds",
            "max_fds",
            "start_time_seconds",
        ):
            assert value(parent, f"process_{name}", worker=worker) is not None, name
    parent.died(2)
    assert value(parent, "process_open_fds", worker="2") is None
    # One that has died, and of whose death the parent has not heard yet.
    gone = Worker()
    gone.process.communicate()
    parent.born(2, gone.process.pid)
    assert value(parent, "process_open_fds", worker="2") is None
    assert value(parent, "process_open_fds", worker="1")


@pytest.mark.parametrize(
    ("accept", "parse"),
    [
        ("", parser.text_string_to_metric_families),
        ("application/openmetrics-text; version=1.0.0", openmetrics_parser.text_string_to_metric_families),
    ],
)
def test_the_text_can_be_read_by_prometheus(
    workers: tuple[Worker, Worker], accept: str, parse: Callable[[str], Iterable[Metric]]
) -> None:
    parent = parent_of(*workers)
    for number, worker in enumerate(workers, 1):
        parent.update(number, worker.report("metrics.TRITON_SECONDS.labels('a:1', 'new', 'OK').observe(1)"))
    text = metrics.render(accept, parent.registry)[0].decode()
    families = list(parse(text))
    assert len({family.name for family in families}) == len(families)
    series = [(sample.name, tuple(sample.labels.items())) for family in families for sample in family.samples]
    assert len(set(series)) == len(series)
    types = {family.name: family.type for family in families}
    assert types["visiongate_calls"] == "counter"
    assert types["visiongate_call_seconds"] == "histogram"
    assert types["visiongate_workers"] == "gauge"
    assert not any(name.startswith("python_") for name in types)


def test_gathering_the_changes_changes_nothing() -> None:
    before = metrics.render("")[0]
    changes()
    after = metrics.render("")[0]
    assert [line for line in before.splitlines() if line.startswith(b"visiongate_")] == [
        line for line in after.splitlines() if line.startswith(b"visiongate_")
    ]


def test_what_a_worker_drops_is_gone(workers: tuple[Worker, Worker]) -> None:
    """A Triton that has left, and models that are served no more."""
    parent = parent_of(*workers)
    for number, worker in enumerate(workers, 1):
        parent.update(
            number,
            worker.report(
                "metrics.TRITON_UP.labels('a:1').set(1);"
                "metrics.TRITON_REQUESTS.labels('a:1', 'gaze', 'OK').inc();"
                "metrics.describe_models([dict(family='f', variant='v', model='m', export='e')])"
            ),
        )
    info = {"family": "f", "variant": "v", "model": "m"}
    assert value(parent, "visiongate_triton_requests_total", server="a:1", model="gaze", code="OK") == 2
    assert value(parent, "visiongate_model_info", **info, export="e") == 1
    for number, worker in enumerate(workers, 1):
        other = "metrics.describe_models([dict(family='f', variant='v', model='m', export='g')])"
        parent.update(number, worker.report(f"metrics.forget_triton('a:1'); {other}"))
    assert value(parent, "visiongate_triton_up", server="a:1") is None
    assert value(parent, "visiongate_triton_requests_total", server="a:1", model="gaze", code="OK") is None
    assert value(parent, "visiongate_model_info", **info, export="e") is None
    assert value(parent, "visiongate_model_info", **info, export="g") == 1


def test_buckets_may_be_reported_in_any_order(workers: tuple[Worker, Worker]) -> None:
    worker, _ = workers
    parent = parent_of(worker)
    code = "metrics.BATCH_SIZE.labels('m').observe(3); metrics.BATCH_SIZE.labels('m').observe(100)"
    parent.update(1, reversed(worker.report(code)))
    buckets = [
        (sample.labels["le"], sample.value)
        for metric in parent.collect()
        for sample in metric.samples
        if sample.name == "visiongate_batch_size_bucket" and sample.labels["model"] == "m"
    ]
    counts = {"1.0": 0, "2.0": 0, "4.0": 1, "8.0": 1, "16.0": 1, "32.0": 1, "64.0": 1, "128.0": 2, "+Inf": 2}
    assert buckets == list(counts.items())


def test_no_change_is_lost_while_another_thread_counts() -> None:
    counter = Counter("test_counted_by_a_thread", "", registry=None)

    def count() -> None:
        for _ in range(20_000):
            counter.inc()

    threads = [threading.Thread(target=count) for _ in range(2)]
    for thread in threads:
        thread.start()
    reported: list[float] = []
    is_over = False
    while not is_over:
        is_over = not any(thread.is_alive() for thread in threads)
        reported += [change[-1] for change in changes() if change[0] == "test_counted_by_a_thread"]
    assert reported == sorted(reported)
    assert reported[-1] == 40_000

"""How a worker process reports to its parent."""

import json
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gateway import metrics, worker
from gateway.settings import Settings
from gateway.worker import Reporter, first_line


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """The parent's end and the worker's."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def read(end: int, count: int) -> list[dict[str, Any]]:
    """So many lines of a report."""
    text = b""
    while text.count(b"\n") < count:
        text += os.read(end, 1 << 16)
    return [json.loads(line) for line in text.splitlines()]


def test_each_line_has_the_metrics_that_have_changed(pipe: tuple[int, int]) -> None:
    def refusals(line: dict[str, Any]) -> list[float]:
        """Other gateways of this process change other metrics."""
        name, labels = "visiongate_refusals_total", [["reason", "calls"]]
        return [value for _, sample, own, _, value in line["metrics"] if (sample, own) == (name, labels)]

    reporter = Reporter(pipe[1])
    reporter.beat()
    (first,) = read(pipe[0], 1)
    assert first["alive"]
    metrics.REFUSALS.labels("calls").inc()
    reporter.tell(served="models")
    (second,) = read(pipe[0], 1)
    assert second["served"] == "models"
    (count,) = refusals(second)
    reporter.beat()
    (third,) = read(pipe[0], 1)
    assert refusals(third) == []
    metrics.REFUSALS.labels("calls").inc()
    reporter.close()
    (last,) = read(pipe[0], 1)
    assert refusals(last) == [count + 1]


def test_a_parent_that_does_not_read_holds_up_nothing(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "MAX_LAST_REPORT_S", 0.01)
    reporter = Reporter(pipe[1])
    reporter.tell(served="x" * (1 << 20))  # more than fits into a pipe
    while not reporter._messages.empty():
        time.sleep(0.001)  # until it is being written
    for _ in range(1000):
        reporter.beat()
    reporter.close()
    lines = read(pipe[0], 3)
    # A thousand beats are one.
    assert [set(line) - {"metrics"} for line in lines] == [{"served"}, {"alive"}, {"last"}]


def test_a_parent_that_has_gone_is_no_fault() -> None:
    parent, own = os.pipe()
    reporter = Reporter(own)
    os.close(parent)
    reporter.tell(served="models")
    reporter.close()
    assert not reporter._thread.is_alive()
    os.close(own)


def test_the_first_line_brings_the_settings_and_the_secret() -> None:
    settings = Settings(port=7, max_connection_age_s=float("inf"))
    line = json.loads(first_line(settings, b"\x00\xff"))
    assert Settings.model_validate_json(line["settings"]) == settings
    assert bytes.fromhex(line["image_id_secret"]) == b"\x00\xff"

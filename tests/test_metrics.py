"""What is rendered for Prometheus, by one process and by several."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway import metrics

DETECT = "/visiongate.v1.DetectionService/DetectObjects"


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(text: str, name: str, **labels: str) -> float:
    return samples(text)[name, frozenset(labels.items())]


def render(accept: str = "") -> str:
    body, _ = metrics.render(accept)
    return body.decode()


def test_what_is_counted_is_rendered() -> None:
    metrics.TRITON_RETRIES.labels("rendered").inc(3)
    assert value(render(), "visiongate_triton_retries_total", model="rendered") == 3


def test_the_format_is_the_one_asked_for() -> None:
    body, content_type = metrics.render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
    assert metrics.render("")[1].startswith("text/plain")


def test_readiness_is_by_service() -> None:
    metrics.READY.labels("some.Service").set(1)
    metrics.READY.labels("other.Service").set(0)
    readiness = metrics.readiness()
    assert readiness["some.Service"]
    assert not readiness["other.Service"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of the metrics that worker processes share."""
    monkeypatch.setattr(metrics, "_folder", "")
    for name, folder in metrics.add_up(str(tmp_path)).items():
        monkeypatch.setenv(name, folder)
    return tmp_path


def work(code: str) -> int:
    """Counts in a worker process of its own; its id."""
    program = f"import os; from gateway import metrics; {code}; print(os.getpid())"
    result = subprocess.run(
        [sys.executable, "-c", program], env=os.environ, capture_output=True, text=True, check=True
    )
    return int(result.stdout)


def test_workers_are_added_up(folder: Path) -> None:
    for _ in range(2):
        work(
            f"metrics.CALLS.labels('{DETECT}', 'OK', 'app').inc(2); metrics.CALLS_IN_FLIGHT.inc();"
            "metrics.CACHE_BYTES.labels('image').set(100); metrics.STAGE_SECONDS.labels('decode').observe(1)"
        )
    text = render()
    assert value(text, "visiongate_calls_total", method=DETECT, code="OK", caller="app") == 4
    assert value(text, "visiongate_calls_in_flight") == 2
    assert value(text, "visiongate_cache_bytes", cache="image") == 200
    assert value(text, "visiongate_stage_seconds_count", stage="decode") == 2


def test_workers_are_ready_when_all_are(folder: Path) -> None:
    assert metrics.readiness() == {}
    work("metrics.READY.labels('').set(1)")
    assert metrics.readiness() == {"": True}
    work("metrics.READY.labels('').set(0)")
    assert metrics.readiness() == {"": False}


@pytest.mark.parametrize("name", ["PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"])
@pytest.mark.parametrize("is_there", [True, False])
def test_another_programs_folder_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_there: bool
) -> None:
    folder = tmp_path / "others"
    if is_there:
        folder.mkdir()
    monkeypatch.setenv(name, str(folder))
    work(
        "metrics.READY.labels('').set(1); metrics.CALLS.labels('a', 'OK', '').inc();"
        "assert metrics.readiness() == {'': True}; assert b'visiongate_calls_total' in metrics.render('')[0]"
    )
    assert folder.exists() == is_there
    assert not is_there or not list(folder.iterdir())

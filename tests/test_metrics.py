"""What is rendered for Prometheus."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, Counter
from prometheus_client.parser import text_string_to_metric_families

from gateway import metrics
from gateway.errors import NotFiniteError, OverloadedError, TritonUnavailableError, end_of
from gateway.services.registry import SERVICES
from gateway.settings import Settings
from gateway.worker_metrics import WorkerMetrics


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def render(accept: str = "") -> str:
    body, _ = metrics.render(accept)
    return body.decode()


def test_what_is_counted_is_rendered() -> None:
    metrics.TRITON_RETRIES.labels("rendered").inc(3)
    rendered = samples(render())
    assert rendered["visiongate_triton_retries_total", frozenset({("model", "rendered")})] == 3


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


def test_series_of_known_labels_exist_before_anything_is_counted() -> None:
    """In a process that has done nothing yet."""
    program = (
        "from gateway import metrics; import gateway.services.registry; print(metrics.render('')[0].decode())"
    )
    fresh = samples(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    )

    def value(name: str, **labels: str) -> float:
        return fresh[name, frozenset(labels.items())]

    for reason in ("calls", "bytes", "slow", "key_missing", "key_unknown"):
        assert value("visiongate_refusals_total", reason=reason) == 0
    assert value("visiongate_cache_lookups_total", cache="sam_embedding", result="hit") == 0
    assert value("visiongate_images_total", source="uri") == 0
    assert value("visiongate_stage_seconds_count", stage="decode") == 0
    methods = [method for service in SERVICES for method in service.methods]
    assert "/visiongate.v1.DetectionService/DetectObjects" in methods
    for method in methods:
        assert value("visiongate_call_seconds_count", method=method, code="OK") == 0
        for error in (
            TritonUnavailableError("gone"),
            NotFiniteError("gaze"),
            OverloadedError("full", "calls", 1),
        ):
            end = end_of(error)
            labels = {"code": end.code.name, "reason": end.reason, "fault": end.fault}
            assert value("visiongate_calls_total", method=method, **labels) == 0
    assert value("visiongate_caller_calls_total", caller="", code="RESOURCE_EXHAUSTED") == 0


def test_labels_become_known_later_each_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_known_labels", {})
    monkeypatch.setattr(metrics, "_told", {})
    counter = Counter("test_known_later", "", ["server", "model", "code"], registry=None)
    metrics._at_zero(counter, server=(), model=(), code=("OK", "INTERNAL"))

    def series() -> list[dict[str, str]]:
        return [sample.labels for metric in counter.collect() for sample in metric.samples]

    metrics.know("model", ["a", "b"])
    assert series() == []
    metrics.know("server", ["one"])
    expected = [
        {"server": "one", "model": model, "code": code} for model in "ab" for code in ("OK", "INTERNAL")
    ]
    assert series() == expected
    counter.labels("one", "a", "OK").inc()
    metrics.know("model", ["c"])
    assert len(series()) == 6
    assert counter.collect()[0].samples[0].value == 1  # type: ignore[index]


def test_no_series_says_when_it_was_created() -> None:
    assert "_created" not in render()
    assert "_created" not in render("application/openmetrics-text; version=1.0.0")


def test_no_edge_of_a_bucket_is_a_limit() -> None:
    """Else calls that end at the limit would count on either side of the edge, as chance has it."""
    edges = {
        float(sample.labels["le"])
        for metric in REGISTRY.collect()
        if metric.name.startswith("visiongate_") and metric.name.endswith("_seconds")
        for sample in metric.samples
        if sample.name.endswith("_bucket")
    }
    settings = Settings()
    limits = {settings.max_call_s, settings.max_receive_s, settings.max_send_s, settings.uri_timeout_s}
    assert len(edges) > 10
    assert not edges & limits
    # And some lie between the limits, and above.
    assert max(limits) < max(edges - {float("inf")})


def test_what_runs_is_said() -> None:
    (info,) = [metric for metric in REGISTRY.collect() if metric.name == "visiongate_build_info"]
    (sample,) = info.samples
    assert sample.value == 1
    assert set(sample.labels) == {"version", "python", "grpc"}
    assert sample.labels["python"] == ".".join(map(str, sys.version_info[:3]))


@pytest.mark.parametrize("name", ["PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"])
@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize("imports", ["", "import prometheus_client; "])
def test_another_programs_folder_is_left_alone(
    tmp_path: Path, name: str, is_there: bool, imports: str
) -> None:
    folder = tmp_path / "others"
    if is_there:
        folder.mkdir()
    program = (
        f"{imports}from gateway import metrics; metrics.READY.labels('').set(1);"
        "metrics.IMAGES.labels('raw').inc();"
        "assert metrics.readiness() == {'': True}; assert b'visiongate_calls_total' in metrics.render('')[0]"
    )
    subprocess.run([sys.executable, "-c", program], env=os.environ | {name: str(folder)}, check=True)
    assert folder.exists() == is_there
    assert not is_there or not list(folder.iterdir())


def test_no_label_is_one_that_prometheus_gives_to_targets() -> None:
    """Prometheus would keep its own, and call ours exported_service."""
    of_targets = {"job", "instance", "namespace", "pod", "container", "service", "endpoint", "node"}
    metrics.READY.labels("some.Service").set(1)
    labels = {
        label
        for family in [*REGISTRY.collect(), *WorkerMetrics(1).collect()]
        for sample in family.samples
        for label in sample.labels
    }
    assert "grpc_service" in labels
    assert not labels & of_targets


def test_every_metric_is_in_the_table_of_readme() -> None:
    readme = (Path(__file__).parents[1] / "gateway" / "README.md").read_text()
    table = readme.partition("## Metrics and alerts")[2].partition("### Alerts")[0]
    families = [*REGISTRY.collect(), *WorkerMetrics(0).collect()]
    names = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    documented = {name for name in names if name.startswith("visiongate_")}
    assert len(documented) > 20
    assert [name for name in sorted(documented) if f"`{name}`" not in table] == []

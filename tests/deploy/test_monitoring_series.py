"""A real Prometheus scrapes a real gateway, Triton and Envoy: what anybody looks at has series.

GPUs are what recorded pages say. Prometheus gives targets the labels that they have in Kubernetes.
"""

import copy
import datetime
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme

import envoy
import helm
from gateway.api_keys import ApiKey, write_keys
from gateway.embedded import EmbeddedTriton
from prometheus import Prometheus, parts, scraping
from soak.service import Service, free_port, serving
from visiongate import Client, VisiongateError

DASHBOARDS = sorted((helm.CHART / "files" / "dashboards").glob("*.json"))
RECORDED = Path(__file__).with_name("exposition")
POD, TRITON_POD = "visiongate-7d4f9c6b8-k2x8p", "visiongate-triton-6b5c8d7f4-x2f9z"


def alert_rules() -> dict[str, Any]:
    """What Prometheus' operator gets of the chart, which the caller may change."""
    objects = helm.template({"monitoring": {"rules": {"enabled": True}}})
    spec: dict[str, Any] = copy.deepcopy(objects["PrometheusRule/visiongate"]["spec"])
    return spec


@contextmanager
def recorded_pages() -> Iterator[str]:
    """An HTTP server of the recorded pages, and its address."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(RECORDED))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def gateway(triton: EmbeddedTriton, folder: Path) -> Iterator[Service]:
    """Two processes with TLS and API keys, which have answered a good call and a wrong one."""
    key, secret = ApiKey.generate("app")
    write_keys(folder / "keys.toml", [key])
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=3)
    certificate = ca.issue_cert("127.0.0.1", not_after=soon)
    certificate.private_key_pem.write_to_path(str(folder / "tls.key"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "tls.crt"))
    files = {"--api-keys": "keys.toml", "--tls-certificate": "tls.crt", "--tls-key": "tls.key"}
    arguments = [word for option, name in files.items() for word in (option, str(folder / name))]
    with serving(
        triton.grpc_address, *arguments, "--processes", "2", "--http-port", str(free_port())
    ) as service:
        with Client(service.address, api_key=secret, root_certificates=folder / "ca.pem") as client:
            client.detect(np.zeros((64, 64, 3), np.uint8), ["a dog"])
            with pytest.raises(VisiongateError, match="image"):
                client.embed_images([b"no image"])
        yield service


@pytest.fixture(scope="module")
async def prometheus(
    demo_triton: EmbeddedTriton, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Prometheus]:
    rules = alert_rules()
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule["for"] = "0s"
    with gateway(demo_triton, tmp_path_factory.mktemp("gateway")) as service, recorded_pages() as pages:
        address = service.metrics_url.removeprefix("http://").removesuffix("/metrics")
        async with envoy.serving([envoy.Behind("127.0.0.1", free_port(), free_port())]) as edge:
            labels = {"namespace": helm.NAMESPACE, "service": "visiongate-headless", "container": "main"}
            triton = demo_triton.metrics_address
            targets: dict[str, list[dict[str, Any]]] = {
                "visiongate": [{"targets": [address], "labels": {**labels, "pod": POD}}],
                "visiongate-triton": [
                    # As a pod of its own, and as a sidecar.
                    {"targets": [triton], "labels": {**labels, "pod": TRITON_POD}},
                    {"targets": [triton], "labels": {**labels, "pod": POD}},
                    {
                        "targets": [pages],
                        "labels": {**labels, "pod": TRITON_POD},
                        "metrics_path": "/triton_gpu.txt",
                    },
                ],
                "visiongate-envoy": [
                    {
                        "targets": [edge.metrics_url.removeprefix("http://")],
                        "labels": {**labels, "pod": "envoy"},
                        "metrics_path": "/stats/prometheus",
                    }
                ],
                "dcgm-exporter": [{"targets": [pages], "metrics_path": "/dcgm.txt"}],
            }
            with scraping(targets, rules) as running:
                wait_for_scrapes(running, sum(map(len, targets.values())))
                yield running


def wait_for_scrapes(running: Prometheus, count: int) -> None:
    """Until rates are known of all targets, and rules were evaluated since."""
    end = time.monotonic() + 30
    while len(running.query("sum_over_time(up[1m]) >= 3")) < count or not running.query("ALERTS"):
        assert time.monotonic() < end, running.get("targets")
        time.sleep(0.2)


def without_series(running: Prometheus, expressions: list[str]) -> list[str]:
    asked = [part for expression in expressions for part in parts(expression)]
    assert asked
    return [part for part in asked if not running.query(part)]


def chosen(text: str, dashboard: dict[str, Any]) -> str:
    """An expression as Grafana asks it, with what a dashboard chooses at first."""
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            value = variable["current"]["value"]
            text = text.replace(f"${variable['name']}", variable["allValue"] if value == "$__all" else value)
    text = text.replace("$__rate_interval", "30s")
    assert "$" not in text
    return text


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_each_panel_has_a_series(prometheus: Prometheus, file: Path) -> None:
    dashboard = json.loads(file.read_text())
    expressions = [
        chosen(target["expr"], dashboard) for it in dashboard["panels"] for target in it.get("targets", [])
    ]
    assert len(expressions) > 15
    assert without_series(prometheus, expressions) == []


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_each_legend_names_labels_that_are_there(prometheus: Prometheus, file: Path) -> None:
    dashboard = json.loads(file.read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            labels = {word.partition("}}")[0] for word in target["legendFormat"].split("{{")[1:]}
            found = [
                series
                for part in parts(chosen(target["expr"], dashboard))
                for series in prometheus.query(part)
            ]
            there = {label for series in found for label in series["metric"]}
            assert labels <= there, panel["title"]


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_each_variable_has_values(prometheus: Prometheus, file: Path) -> None:
    dashboard = json.loads(file.read_text())
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            query = chosen(variable["query"].removeprefix("label_values(").removesuffix(")"), dashboard)
            selector, _, label = query.rpartition(", ")
            values = prometheus.get(f"label/{label}/values", match=selector)
            assert values, query
            current = variable["current"]["value"]
            assert current == "$__all" or current in values


def test_all_that_alerts_compare_has_a_series(prometheus: Prometheus) -> None:
    expressions = [rule["expr"] for group in alert_rules()["groups"] for rule in group["rules"]]
    assert without_series(prometheus, expressions) == []


def test_the_charts_rules_are_loaded_and_fire(prometheus: Prometheus) -> None:
    """The certificate ends in three days, and nobody is behind the edge."""
    alerts = {it["metric"]["alertname"] for it in prometheus.query('ALERTS{alertstate="firing"}')}
    assert alerts == {"VisiongateCertificateExpires", "VisiongateEdgeNoHost"}
    for group in prometheus.get("rules")["groups"]:
        for rule in group["rules"]:
            assert rule["health"] == "ok", rule
            for alert in rule["alerts"]:
                # All that is in braces has been filled in.
                assert "<no value>" not in str(alert["annotations"])
                assert "{{" not in str(alert["annotations"])


@pytest.mark.parametrize("mode", ["sidecar", "separate"])
def test_what_the_chart_scales_by_has_a_series(prometheus: Prometheus, mode: str) -> None:
    triton = {"mode": mode}
    keda = helm.template(
        {"triton": triton, "autoscaling": {"kind": "keda", "prometheusAddress": "http://prometheus:9090"}}
    )
    queries = [
        trigger["metadata"]["query"]
        for it in keda.values()
        if it["kind"] == "ScaledObject"
        for trigger in it["spec"]["triggers"]
    ]
    # prometheus-adapter offers gauges by their own names.
    metrics = [
        metric["pods"]["metric"]["name"]
        for it in helm.template({"triton": triton, "autoscaling": {"kind": "hpa"}}).values()
        if it["kind"] == "HorizontalPodAutoscaler"
        for metric in it["spec"]["metrics"]
    ]
    assert len(queries) >= 4
    assert metrics
    assert without_series(prometheus, queries + metrics) == []


@pytest.mark.parametrize(
    "wrong",
    [
        "rate(visiongate_call_total[30s])",
        'visiongate_calls_total{fault="servers"}',
        'visiongate_ready{service=""} == 0',
        "visiongate_triton_up == 0 or visiongate_triton_ready == 0",
        # Their labels differ.
        "visiongate_calls_in_flight > 0.8 * visiongate_cache_max_bytes",
        "visiongate_triton_model_ready == 0 unless visiongate_triton_up == 0",
    ],
)
def test_wrong_names_are_noticed(prometheus: Prometheus, wrong: str) -> None:
    assert len(without_series(prometheus, [wrong])) == 1


@pytest.mark.parametrize(
    ("expression", "asked"),
    [
        ("a > 1", ["(a{}) > bool (1)"]),
        ("a unless on (job) b == 0", ["(a{}) and on (job) ((b{}) == bool (0))"]),
        ("up == 0 or absent(up)", ["(up{}) == bool (0)", "up{}"]),
        ("sum(a) / (sum(b) > 0)", ["sum(a{}) / ((sum(b{})) > bool (0))"]),
    ],
)
def test_conditions_are_taken_out(expression: str, asked: list[str]) -> None:
    assert [part.replace("  ", " ") for part in parts(expression)] == asked

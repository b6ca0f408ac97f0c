"""The alerts of the chart, in promtool: each fires for its incident, and none while all is well."""

from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import yaml

from alerts import INTERVAL_S, PROMTOOL, Recording, promtool, replay, rules, samples
from gateway import metrics
from gateway.worker_metrics import WorkerMetrics

pytestmark = pytest.mark.skipif(PROMTOOL is None, reason="promtool is missing (Debian's package prometheus)")

PROJECT = Path(__file__).parents[1]
GROUPS: list[dict[str, Any]] = yaml.safe_load(rules())["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
START = 40  # scrapes before the incident: 10 minutes
STEPS = 130
METHOD = "/visiongate.v1.DetectionService/DetectObjects"
Scrape = dict[str, float]
# What an incident changes of a scrape: it gets the number of scrapes since its start.
Incident = Callable[[Scrape, int], Any]


def calls(code: str, fault: str, reason: str = "") -> str:
    return f'visiongate_calls_total{{method="{METHOD}",code="{code}",reason="{reason}",fault="{fault}"}}'


def seconds(le: str) -> str:
    return f'visiongate_call_seconds_bucket{{method="{METHOD}",code="OK",le="{le}"}}'


def refusals(reason: str) -> str:
    return f'visiongate_refusals_total{{reason="{reason}"}}'


def reloads(result: str) -> str:
    return f'visiongate_reloads_total{{what="keys",result="{result}"}}'


UP, READY = 'visiongate_triton_up{server="a:8001"}', 'visiongate_ready{grpc_service=""}'
TEXT = 'visiongate_ready{grpc_service="visiongate.v1.TextService"}'
MODEL = 'visiongate_triton_model_ready{server="a:8001",model="gaze"}'
RETRIES, RESTARTS = (
    'visiongate_triton_retries_total{model="gaze"}',
    'visiongate_worker_restarts_total{reason="signal"}',
)
EXPIRY = 'visiongate_certificate_expiry_seconds{file="tls.crt"}'
QUEUE_US = 'nv_inference_queue_duration_us{model="gaze",version="1"}'
PENDING = 'nv_inference_pending_request_count{model="gaze",version="1"}'
GPU, EDGE = 'gpu="0",UUID="GPU-1",Hostname="node"', 'envoy_cluster_name="gateway"'
# On a GPU this one has a label more than the number of those who wait.
SUCCESSES = 'nv_inference_request_success{gpu_uuid="GPU-1",model="gaze",version="1"}'
GPU_USED = 'nv_gpu_memory_used_bytes{gpu_uuid="GPU-1"}'
XID, REMAPPED, REMAP_FAILURE, ECC = (
    f"DCGM_FI_DEV_{name}{{{GPU}}}"
    for name in ("XID_ERRORS", "UNCORRECTABLE_REMAPPED_ROWS", "ROW_REMAP_FAILURE", "ECC_DBE_VOL_TOTAL")
)
HEALTHY, HOSTS, EJECTIONS, EDGE_RETRIES, EDGE_REQUESTS, EDGE_OVERFLOW = (
    f"envoy_cluster_{name}{{{EDGE}}}"
    for name in (
        "membership_healthy",
        "membership_total",
        "outlier_detection_ejections_enforced_total",
        "upstream_rq_retry",
        "upstream_rq_total",
        "upstream_rq_retry_overflow",
    )
)
EDGE_UP = 'up{job="visiongate-envoy"}'


def failures(reason: str) -> str:
    return f'nv_inference_request_failure{{model="gaze",reason="{reason}",version="1"}}'


def well(step: int) -> Scrape:
    """Ten calls a second, most of them quick."""
    done = 150.0 * step
    return {
        READY: 1,
        TEXT: 1,
        'visiongate_ready{grpc_service="visiongate.v1.GazeService"}': 0,  # there are no models for it
        calls("OK", "none"): done,
        calls("INVALID_ARGUMENT", "caller", "IMAGE"): done / 100,
        calls("INTERNAL", "server"): 0,
        calls("RESOURCE_EXHAUSTED", "load"): 0,
        seconds("0.5"): done,
        seconds("12"): done,
        seconds("+Inf"): done,
        "visiongate_calls_in_flight": 10,
        "visiongate_max_calls_in_flight": 64,
        "visiongate_bytes_in_flight": 1e6,
        "visiongate_max_bytes_in_flight": 1e9,
        'process_open_fds{worker="1"}': 50,
        'process_max_fds{worker="1"}': 1024,
        refusals("calls"): 0,
        refusals("caller"): 0,
        refusals("key_unknown"): step,  # somebody mistypes one now and then
        UP: 1,
        MODEL: 1,
        'visiongate_triton_requests_total{server="a:8001",model="gaze",code="OK"}': done,
        RETRIES: 0,
        EXPIRY: 90 * 86400,
        reloads("ok"): step // 30,
        reloads("failed"): step // 30,  # between a file's two halves
        RESTARTS: 0,
        "visiongate_workers": 2,
        "visiongate_workers_wanted": 2,
        QUEUE_US: done * 20_000,  # each waits 20 ms
        PENDING: step % 3,
        SUCCESSES: done,
        failures("BACKEND"): done / 1000,
        failures("REJECTED"): 0,
        failures("CANCELED"): done / 10,  # callers hang up
        GPU_USED: 60e9,
        'nv_gpu_memory_total_bytes{gpu_uuid="GPU-1"}': 80e9,
        XID: 31,  # since long ago
        REMAPPED: 2,
        REMAP_FAILURE: 0,
        ECC: 1,
        EDGE_UP: 1,
        HEALTHY: 3,
        HOSTS: 3,
        EJECTIONS: 0,
        EDGE_REQUESTS: done,
        EDGE_RETRIES: done / 100,
        EDGE_OVERFLOW: 0,
    }


def put(**values: Any) -> Incident:
    return lambda scrape, since: scrape.update(values)


def of(series: str, value: Callable[[int], float]) -> Incident:
    return lambda scrape, since: scrape.update({series: value(since)})


def adding(series: str, each: float) -> Incident:
    """A counter rises at each scrape."""
    return lambda scrape, since: scrape.update({series: scrape[series] + each * since})


def slow(scrape: Scrape, since: int) -> None:
    scrape[seconds("0.5")] -= 150 * since


def stuck(scrape: Scrape, since: int) -> None:
    """Requests wait, and none is answered any more."""
    scrape |= {PENDING: 4} | {series: well(START)[series] for series in (SUCCESSES, QUEUE_US)}


INCIDENTS: dict[str, list[Incident]] = {
    "VisiongateNotReady": [
        of(READY, lambda since: 0),
        lambda scrape, since: [scrape.pop(series) for series in list(scrape) if "visiongate_ready" in series],
    ],
    "VisiongateServiceNotReady": [of(TEXT, lambda since: 0)],
    "VisiongateServerFaults": [adding(calls("INTERNAL", "server"), 3)],
    "VisiongateSlow": [slow],
    "VisiongateFull": [adding(calls("RESOURCE_EXHAUSTED", "load"), 3)],
    "VisiongateNearlyFull": [
        put(visiongate_calls_in_flight=60),
        put(visiongate_bytes_in_flight=0.9e9),
        of('process_open_fds{worker="1"}', lambda since: 1000),
    ],
    "VisiongateCallerOverShare": [adding(refusals("caller"), 30)],
    "VisiongateKeysTried": [adding(refusals("key_unknown"), 30)],
    "VisiongateTritonDown": [of(UP, lambda since: 0)],
    "VisiongateTritonLacksModel": [of(MODEL, lambda since: 0)],
    "VisiongateTritonUnsteady": [of(UP, lambda since: since // 4 % 2), adding(RETRIES, 15)],
    "VisiongateCertificateExpires": [of(EXPIRY, lambda since: 10 * 86400)],
    "VisiongateReloadFailed": [
        lambda scrape, since: scrape.update({reloads("ok"): 1, reloads("failed"): 2 + since // 20}),
    ],
    "VisiongateWorkersDie": [of(RESTARTS, lambda since: since // 8), put(visiongate_workers=1)],
    "VisiongateBadRequests": [adding(calls("INVALID_ARGUMENT", "caller", "IMAGE"), 100)],
    "VisiongateTritonQueues": [adding(QUEUE_US, 150 * 2e6)],
    "VisiongateTritonStuck": [stuck],
    "VisiongateTritonFailures": [adding(failures("BACKEND"), 3), adding(failures("REJECTED"), 3)],
    "VisiongateGpuMemoryFull": [of(GPU_USED, lambda since: 79e9)],
    "VisiongateGpuXid": [of(XID, lambda since: 79)],
    "VisiongateGpuEcc": [
        of(ECC, lambda since: 2),
        of(REMAPPED, lambda since: 3),
        of(REMAP_FAILURE, lambda since: 1),
    ],
    "VisiongateEdgeGone": [of(EDGE_UP, lambda since: 0)],
    "VisiongateEdgeNoHost": [of(HEALTHY, lambda since: 0), put(**{HEALTHY: 0, HOSTS: 0})],
    "VisiongateEdgeHostOut": [of(HEALTHY, lambda since: 2), of(EJECTIONS, lambda since: since // 6)],
    "VisiongateEdgeRetries": [adding(EDGE_RETRIES, 15), adding(EDGE_OVERFLOW, 1)],
}


def seen(incident: Incident, steps: int = STEPS) -> list[Scrape | None]:
    scrapes: list[Scrape | None] = []
    for step in range(steps):
        scrape = well(step)
        if step >= START:
            incident(scrape, step - START)
        scrapes.append(scrape)
    return scrapes


def test_they_are_rules(tmp_path: Path) -> None:
    file = tmp_path / "rules.yml"
    file.write_text(rules())
    assert "SUCCESS" in promtool("check", "rules", str(file))
    assert {rule["alert"] for rule in RULES} == {"VisiongateGone", *INCIDENTS}


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_each_says_what_it_is_what_to_do_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    annotations = rule["annotations"]
    assert set(annotations) == {"summary", "description", "runbook"}
    assert len(annotations["summary"]) > 30
    assert len(annotations["description"]) > 30
    file, _, section = annotations["runbook"].partition("#")
    text = (PROJECT / file).read_text()
    (heading,) = [line for line in text.splitlines() if line.lstrip("# ").lower() == section]
    assert heading.startswith("#")
    assert f"\n| `{rule['alert']}` | " in text.partition(f"\n{heading}\n")[2].partition("\n#")[0]


def test_none_fires_while_all_is_well() -> None:
    assert replay([well(step) for step in range(STEPS)]) == {}


def one_of_each_part() -> list[dict[str, Incident]]:
    """All incidents. Gateways, Triton, GPUs and the edge have series of their own: theirs may go together."""
    part_of = {rule["alert"]: part for part, group in enumerate(GROUPS) for rule in group["rules"]}
    parts: list[list[tuple[str, Incident]]] = [[] for _ in GROUPS]
    for alert, each in INCIDENTS.items():
        parts[part_of[alert]].extend((alert, incident) for incident in each)
    return [dict(filter(None, row)) for row in zip_longest(*parts)]


@pytest.mark.parametrize("incidents", one_of_each_part(), ids="+".join)
def test_an_incident_fires_its_alert_and_no_other(incidents: dict[str, Incident]) -> None:
    def all_at_once(scrape: Scrape, since: int) -> None:
        for incident in incidents.values():
            incident(scrape, since)

    firing = replay(seen(all_at_once))
    assert set(firing) == set(incidents)
    # Not at once, within 20 minutes, and until the end, but for what comes and goes.
    for scrapes in firing.values():
        assert START < scrapes[0] < START + 80
        assert scrapes[-1] == STEPS - 1


def test_a_gateway_that_does_not_answer_fires() -> None:
    scrapes = [well(step) if step < START else None for step in range(START + 20)]
    firing = replay(scrapes)
    assert firing == {"VisiongateGone": list(range(START + 60 // INTERVAL_S, START + 20))}


def test_an_incident_that_passes_quickly_fires_nothing() -> None:
    def short(scrape: Scrape, since: int) -> None:
        if since < 3:
            scrape |= {READY: 0, UP: 0, calls("INTERNAL", "server"): since}

    assert replay(seen(short)) == {}


def test_an_alert_ends_with_its_incident() -> None:
    def short(scrape: Scrape, since: int) -> None:
        if since < 20:
            scrape[READY] = 0

    assert replay(seen(short)) == {"VisiongateNotReady": list(range(START + 120 // INTERVAL_S, START + 20))}


RECORDED = Recording.read(Path(__file__).with_name("recorded_incidents.json.gz"))
"""By `python -m soak.incidents --record`: the incidents of gateway/README.md, one after the other."""


def test_real_incidents_fire_their_alerts_and_no_other() -> None:
    firing = replay(RECORDED.scrapes)
    assert set(firing) == set(RECORDED.periods)
    for alert, (first, last) in RECORDED.periods.items():
        assert first < firing[alert][0] <= last + 2, alert
        assert firing[alert][-1] < len(RECORDED.scrapes) - 1, f"{alert} does not end"


@pytest.mark.parametrize("alert", RECORDED.periods)
def test_each_recorded_incident_is_in_the_table_of_readme(alert: str) -> None:
    readme = (PROJECT / "gateway" / "README.md").read_text()
    table = readme.partition("## What to look at when")[2].partition("## The log")[0]
    assert f"`{alert}`" in table


def test_a_real_page_can_be_replayed() -> None:
    """One process's, and that of a parent of several: labels and numbers of every kind."""
    pages = [metrics.render("")[0].decode(), metrics.render("", WorkerMetrics(0).registry)[0].decode()]
    for page in pages:
        scrape = samples(page)
        assert "visiongate_calls_in_flight" in scrape
        # What other tests of this process have left is not looked at.
        told = {series: value for series, value in scrape.items() if "ready" not in series} | {EXPIRY: 1e9}
        assert "VisiongateNotReady" in replay([told] * 20)


# Of the names of others a real Prometheus is asked: tests/deploy/test_monitoring_series.py.
@pytest.mark.parametrize(
    "name",
    [
        name
        for series in well(0)
        if (name := series.partition("{")[0]).startswith(("visiongate_", "process_"))
    ],
)
def test_the_examples_here_have_the_names_of_readme(name: str) -> None:
    readme = (PROJECT / "gateway" / "README.md").read_text()
    base = name.removesuffix("_bucket")
    table = readme.partition("## Metrics and alerts")[2].partition("### Alerts")[0]
    assert base in table or base == "process_max_fds"

"""The chart's monitors, rules and dashboards as Helm renders them, and Grafana's as they are made."""

import json
import re
from typing import Any

import pytest
import yaml

import helm
from alerts import rules
from deploy.grafana.dashboards import BOARDS, FOLDER, rendered
from kubernetes_objects import faults, newest

ALERTS = {rule["alert"]: rule for group in yaml.safe_load(rules())["groups"] for rule in group["rules"]}
TRITON_MODES: dict[str, dict[str, Any]] = {
    "sidecar": {"mode": "sidecar"},
    "separate": {"mode": "separate"},
    "external": {"mode": "external", "address": "10.0.0.7:8001"},
}


def monitored(of: str, values: dict[str, Any] | None = None, **more: Any) -> helm.Objects:
    """The chart's objects with a part of `monitoring`. Kubernetes takes them all."""
    objects = helm.template(
        {"monitoring": {of: {"enabled": True, **(values or {})}}, **more}, version=newest()
    )
    assert faults(objects, newest()) == []
    return objects


def of_kind(kind: str, objects: helm.Objects) -> list[dict[str, Any]]:
    return [it for it in objects.values() if it["kind"] == kind]


def ports(pod: dict[str, Any]) -> set[str]:
    spec = pod["spec"]
    containers = spec["containers"] + spec.get("initContainers", [])
    return {port["name"] for container in containers for port in container.get("ports", [])}


def test_nothing_is_there_unless_it_is_asked_for() -> None:
    objects = helm.template()
    kinds = {it["kind"] for it in objects.values()}
    assert not kinds & {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
    assert not [it for it in of_kind("ConfigMap", objects) if "dashboard" in it["metadata"]["name"]]


@pytest.mark.parametrize("mode", ["sidecar", "separate"])
def test_the_monitors_find_gateways_and_tritons(mode: str) -> None:
    labels = {"release": "prometheus"}
    objects = monitored("monitors", {"labels": labels, "interval": "20s"}, triton=TRITON_MODES[mode])
    (gateways,) = of_kind("ServiceMonitor", objects)
    (tritons,) = of_kind("PodMonitor", objects)
    for monitor in (gateways, tritons):
        assert monitor["metadata"]["labels"]["release"] == "prometheus"

    wanted = gateways["spec"]["selector"]["matchLabels"].items()
    services = [it for it in of_kind("Service", objects) if wanted <= it["metadata"]["labels"].items()]
    # The pods once, and not by two Services.
    assert [it["metadata"]["name"] for it in services] == ["visiongate-headless"]
    (endpoint,) = gateways["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in services[0]["spec"]["ports"]}
    assert (endpoint["interval"], endpoint["scrapeTimeout"]) == ("20s", "10s")

    wanted = tritons["spec"]["selector"]["matchLabels"].items()
    pods = [it["spec"]["template"] for it in of_kind("Deployment", objects)]
    (pod,) = [it for it in pods if wanted <= it["metadata"]["labels"].items()]
    (endpoint,) = tritons["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in ports(pod)


def test_a_triton_elsewhere_has_no_monitor() -> None:
    objects = monitored("monitors", triton=TRITON_MODES["external"])
    assert of_kind("ServiceMonitor", objects)
    assert not of_kind("PodMonitor", objects)


def test_jobs_have_the_names_that_alerts_rely_on() -> None:
    objects = monitored("monitors", fullnameOverride="other")
    (gateways,) = of_kind("ServiceMonitor", objects)
    (tritons,) = of_kind("PodMonitor", objects)
    endpoints = gateways["spec"]["endpoints"] + tritons["spec"]["podMetricsEndpoints"]
    jobs = [
        it["replacement"] for each in endpoints for it in each["relabelings"] if it["targetLabel"] == "job"
    ]
    assert jobs == ["visiongate", "visiongate-triton"]
    assert set(re.findall(r'job="([^"]+)"', rules())) == {*jobs, "visiongate-envoy"}


def test_the_rules_are_those_of_the_file() -> None:
    values = {"labels": {"release": "prometheus"}, "alertLabels": {"team": "vision"}}
    (rule,) = of_kind("PrometheusRule", monitored("rules", values))
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    rendered_rules = {it["alert"]: it for group in rule["spec"]["groups"] for it in group["rules"]}
    assert set(rendered_rules) == set(ALERTS)
    for alert, it in rendered_rules.items():
        # With all that Prometheus fills in, which Helm would take for its own.
        assert it == ALERTS[alert] | {"labels": ALERTS[alert]["labels"] | {"team": "vision"}}


def test_alerts_can_be_left_out() -> None:
    names = ["VisiongateGpuMemoryFull", "VisiongateGpuXid", "VisiongateGpuEcc", "VisiongateSlow"]
    (rule,) = of_kind("PrometheusRule", monitored("rules", {"exclude": names}))
    groups = {group["name"]: [it["alert"] for it in group["rules"]] for group in rule["spec"]["groups"]}
    assert {alert for each in groups.values() for alert in each} == set(ALERTS) - set(names)
    assert "visiongate-gpu" not in groups


def test_an_alert_that_is_none_cannot_be_left_out() -> None:
    with pytest.raises(helm.HelmError, match=r"rules\.exclude: there is no alert VisiongateSlowly"):
        monitored("rules", {"exclude": ["VisiongateSlowly"]})


@pytest.mark.parametrize(
    ("monitoring", "name"),
    [
        ({"monitors": {"interval": "soon"}}, "/monitoring/monitors/interval"),
        ({"monitors": {"label": {}}}, "'label'"),
        ({"rules": {"exclude": "VisiongateSlow"}}, "/monitoring/rules/exclude"),
        ({"dashboards": {"enabled": "yes"}}, "/monitoring/dashboards/enabled"),
        ({"dashboard": {}}, "'dashboard'"),
    ],
)
def test_wrong_values_are_refused_by_name(monitoring: dict[str, Any], name: str) -> None:
    assert name in helm.lint({"monitoring": monitoring})


def test_each_dashboard_is_a_config_map_for_grafanas_sidecar() -> None:
    values = {"labels": {"team": "vision"}, "annotations": {"grafana_folder": "Vision"}}
    objects = monitored("dashboards", values)
    maps = [it for it in of_kind("ConfigMap", objects) if "grafana_dashboard" in it["metadata"]["labels"]]
    assert {it["metadata"]["name"] for it in maps} == {f"visiongate-dashboard-{name}" for name in BOARDS}
    for it in maps:
        assert it["metadata"]["labels"].items() >= {"grafana_dashboard": "1", "team": "vision"}.items()
        assert it["metadata"]["annotations"] == {"grafana_folder": "Vision"}
        ((file, text),) = it["data"].items()
        # Also Grafana's own words in braces are as they were.
        assert text.split("\n") == (FOLDER / file.removeprefix("visiongate-")).read_text().splitlines()


def test_the_files_of_dashboards_are_fresh() -> None:
    """Else: make dashboards."""
    made = {name: text.splitlines() for name, text in rendered().items()}
    assert {file.stem: file.read_text().splitlines() for file in FOLDER.iterdir()} == made


@pytest.mark.parametrize("name", BOARDS)
def test_each_panel_says_what_to_look_at(name: str) -> None:
    dashboard = json.loads((FOLDER / f"{name}.json").read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    for panel in panels:
        assert len(panel["description"]) > 8, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        for target in panel["targets"]:
            assert target["legendFormat"], panel["title"]
            # The reader's own choice of a data source, everywhere.
            assert target["datasource"]["uid"] == panel["datasource"]["uid"] == "${datasource}"


@pytest.mark.parametrize("name", BOARDS)
def test_panels_lie_beside_each_other(name: str) -> None:
    dashboard = json.loads((FOLDER / f"{name}.json").read_text())
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells


def test_each_alert_is_named_where_its_cause_is_seen() -> None:
    """And no description speaks of one that is not there."""
    told = {
        word
        for text in rendered().values()
        for panel in json.loads(text)["panels"]
        for word in re.findall(r"Visiongate[A-Z]\w+", panel.get("description") or "")
    }
    assert told == set(ALERTS)

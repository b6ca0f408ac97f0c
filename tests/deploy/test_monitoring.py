"""The chart's monitors, rules and dashboards as Helm renders them, and Grafana's as they are made."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import helm
from alerts import rules
from deploy.grafana.dashboards import BOARDS, FOLDER, rendered

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "visiongate"
ALERTS = {rule["alert"]: rule for group in yaml.safe_load(rules())["groups"] for rule in group["rules"]}
MONITORS, RULES, DASHBOARDS = (
    f"monitoring.{name}.enabled=true" for name in ("monitors", "rules", "dashboards")
)


def template(*options: str) -> list[dict[str, Any]]:
    """All objects of the chart."""
    arguments = [word for option in options for word in ("--set", option)]
    result = helm.run("helm", "template", "visiongate", CHART, *arguments)
    assert result.returncode == 0, result.stderr
    return [it for it in yaml.safe_load_all(result.stdout) if it]


def of_kind(kind: str, objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [it for it in objects if it["kind"] == kind]


def pod_templates(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [it["spec"]["template"] for it in of_kind("Deployment", objects)]


def ports(pod: dict[str, Any]) -> set[str]:
    spec = pod["spec"]
    containers = spec["containers"] + spec.get("initContainers", [])
    return {port["name"] for container in containers for port in container.get("ports", [])}


def test_nothing_is_there_unless_it_is_asked_for() -> None:
    objects = template()
    kinds = {it["kind"] for it in objects}
    assert not kinds & {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
    assert not [it for it in of_kind("ConfigMap", objects) if "dashboard" in it["metadata"]["name"]]


@pytest.mark.parametrize("mode", ["sidecar", "separate"])
def test_the_monitors_find_gateways_and_tritons(mode: str) -> None:
    objects = template(MONITORS, f"triton.mode={mode}", "monitoring.monitors.labels.release=prometheus")
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
    assert (endpoint["interval"], endpoint["scrapeTimeout"]) == ("15s", "10s")

    wanted = tritons["spec"]["selector"]["matchLabels"].items()
    (pod,) = [it for it in pod_templates(objects) if wanted <= it["metadata"]["labels"].items()]
    (endpoint,) = tritons["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in ports(pod)


def test_a_triton_elsewhere_has_no_monitor() -> None:
    objects = template(MONITORS, "triton.mode=external", "triton.address=10.0.0.7:8001")
    assert of_kind("ServiceMonitor", objects)
    assert not of_kind("PodMonitor", objects)


def test_jobs_have_the_names_that_alerts_rely_on() -> None:
    objects = template(MONITORS, "fullnameOverride=other")
    (gateways,) = of_kind("ServiceMonitor", objects)
    (tritons,) = of_kind("PodMonitor", objects)
    endpoints = gateways["spec"]["endpoints"] + tritons["spec"]["podMetricsEndpoints"]
    jobs = [
        it["replacement"] for each in endpoints for it in each["relabelings"] if it["targetLabel"] == "job"
    ]
    assert jobs == ["visiongate", "visiongate-triton"]
    assert set(re.findall(r'job="([^"]+)"', rules())) == {*jobs, "visiongate-envoy"}


def test_the_rules_are_those_of_the_file() -> None:
    options = ("monitoring.rules.labels.release=prometheus", "monitoring.rules.alertLabels.team=vision")
    (rule,) = of_kind("PrometheusRule", template(RULES, *options))
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    rendered_rules = {it["alert"]: it for group in rule["spec"]["groups"] for it in group["rules"]}
    assert set(rendered_rules) == set(ALERTS)
    for alert, it in rendered_rules.items():
        # With all that Prometheus fills in, which Helm would take for its own.
        assert it == ALERTS[alert] | {"labels": ALERTS[alert]["labels"] | {"team": "vision"}}


def test_alerts_can_be_left_out() -> None:
    names = ["VisiongateGpuMemoryFull", "VisiongateGpuXid", "VisiongateGpuEcc", "VisiongateSlow"]
    (rule,) = of_kind("PrometheusRule", template(RULES, f"monitoring.rules.exclude={{{','.join(names)}}}"))
    groups = {group["name"]: [it["alert"] for it in group["rules"]] for group in rule["spec"]["groups"]}
    assert {alert for each in groups.values() for alert in each} == set(ALERTS) - set(names)
    assert "visiongate-gpu" not in groups


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("monitoring.rules.exclude={VisiongateSlowly}", "monitoring.rules.exclude"),
        ("monitoring.monitors.interval=soon", "interval"),
        ("monitoring.dashboard.enabled=true", "dashboard"),
    ],
)
def test_wrong_values_are_refused_by_name(option: str, name: str) -> None:
    result = helm.run("helm", "lint", CHART, "--set", RULES, "--set", option)
    assert result.returncode != 0
    assert name in result.stdout + result.stderr


def test_each_dashboard_is_a_config_map_for_grafanas_sidecar() -> None:
    objects = template(DASHBOARDS, "monitoring.dashboards.annotations.grafana_folder=Vision")
    maps = [it for it in of_kind("ConfigMap", objects) if "grafana_dashboard" in it["metadata"]["labels"]]
    assert {it["metadata"]["name"] for it in maps} == {f"visiongate-dashboard-{name}" for name in BOARDS}
    for it in maps:
        assert it["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert it["metadata"]["annotations"] == {"grafana_folder": "Vision"}
        ((file, text),) = it["data"].items()
        # Also Grafana's own words in braces are as they were.
        assert text.strip() == (FOLDER / file.removeprefix("visiongate-")).read_text().strip()


def test_the_files_of_dashboards_are_fresh() -> None:
    """Else: make dashboards."""
    assert {file.stem: file.read_text() for file in FOLDER.iterdir()} == rendered()


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

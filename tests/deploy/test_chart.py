"""Each value of the chart: what it changes, and that nothing else has that by default."""

import base64
import copy
import fnmatch
import math
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

import helm
from gateway import settings_sources
from gateway.embedded.environment import ensure_environment, process_environment, triton_folder
from kubernetes_objects import dangling, faults, insecure, newest

OLDEST = "1.29"
"""Of Chart.yaml's kubeVersion."""

TABLE: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "chart_values.yaml").read_text())

POD = "Deployment/visiongate spec template spec"
GATEWAY = f"{POD} containers gateway"
SIDECAR = f"{POD} initContainers triton"
TRITON_POD = "Deployment/visiongate-triton spec template spec"
TRITON = f"{TRITON_POD} containers triton"
EXPORT = "Job/visiongate-export-* spec template spec containers export"

TRITON_APART: dict[str, Any] = {"triton": {"mode": "separate"}}

GIVEN = {
    *(f"Secret/{name}" for name in ("keys", "ids", "certificate", "clients", "registry")),
    *("ServiceAccount/theirs", "PersistentVolumeClaim/theirs", "ResourceClaimTemplate/gpus"),
}
"""What the values of the table name, and somebody else makes."""


class Row(NamedTuple):
    """A value that is set, and what is then found at a place of the objects."""

    value: str
    set_to: Any
    place: str
    found: Any
    changes: bool


def rows(group: str) -> list[Row]:
    """Return the rows of a group of the table."""
    together = TABLE["together"][group]
    found = [_row(value, row) for value, row in together["rows"].items()]
    if component := together.get("pods"):
        deployment = {"gateway": "visiongate", "triton": "visiongate-triton"}[component]
        pod = f"Deployment/{deployment} spec template spec"
        short = {
            "$CONTAINER": f"{pod} containers {component}",
            "$POD": pod,
            "$DEPLOYMENT": f"Deployment/{deployment}",
            "$NAME": deployment,
        }
        found += [_row(f"{component}.{value}", _long(row, short)) for value, row in TABLE["pods"].items()]
    return found


def _row(value: str, row: Any) -> Row:
    long = _long(row, TABLE["short"])
    return Row(value, long["set"], long["at"], long.get("found", long["set"]), long.get("changes", False))


def _long(value: Any, short: Mapping[str, str]) -> Any:
    """Put words in place of what is short for them."""
    if isinstance(value, dict):
        return {key: _long(it, short) for key, it in value.items()}
    if isinstance(value, list):
        return [_long(it, short) for it in value]
    # The last ones first: they may be made of the first ones.
    for name, text in reversed(list(short.items())) if isinstance(value, str) else ():
        value = value.replace(name, text)
    return value


def with_rows(base: Mapping[str, Any], of: list[Row]) -> dict[str, Any]:
    """Return values with those of the rows."""
    values = copy.deepcopy(dict(base))
    for row in of:
        *folders, name = row.value.split(".")
        inner = values
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[name] = row.set_to
    return values


def at(objects: helm.Objects, place: str) -> Any:
    """Return what is at a place, or None. The object may end with *, for one whose name has a hash."""
    first, *words = place.split(" ")
    found: Any = next((it for name, it in objects.items() if fnmatch.fnmatchcase(name, first)), None)
    for word in words:
        if isinstance(found, list):
            named = {it["name"]: it for it in found if isinstance(it, dict) and "name" in it}
            found = dict(enumerate(found)).get(int(word)) if word.isdigit() else named.get(word)
        else:
            found = found.get(word) if isinstance(found, dict) else None
    return found


def holds(objects: helm.Objects, row: Row) -> bool:
    """Tell if the objects are as a row says. A list, or a text with commas, must have it among others."""
    found = at(objects, row.place)
    among = found.split(",") if isinstance(found, str) else found
    return found == row.found or (isinstance(among, list) and row.found in among)


@pytest.mark.parametrize("group", TABLE["together"])
def test_each_value_does_what_it_says(group: str) -> None:
    base = TABLE["together"][group]["base"]
    before = helm.template(base, version=newest())
    after = helm.template(with_rows(base, rows(group)), version=newest())
    for row in rows(group):
        if row.changes:
            assert at(after, row.place) != at(before, row.place), row
        else:
            assert holds(after, row), (row, at(after, row.place))
            assert not holds(before, row), (row, at(before, row.place))
    for objects in (before, after):
        for version in (TABLE["together"][group].get("oldest", OLDEST), newest()):
            assert faults(objects, version) == []
        assert dangling(objects, GIVEN) == []
    # A folder of the node is for tests alone.
    assert insecure(before) == [] or "hostPath" in base["models"]


def test_the_table_has_every_value() -> None:
    tested = {row.value for group in TABLE["together"] for row in rows(group)} | {"models.source"}
    values = yaml.safe_load((helm.CHART / "values.yaml").read_text())
    del values["monitoring"]
    assert set(_leaves(values, tested)) == tested


def _leaves(values: Mapping[str, Any], tested: set[str], prefix: str = "") -> Iterator[str]:
    """Yield values that are not made of others, and those that were tested as a whole."""
    for name, value in values.items():
        path = prefix + name
        if path not in tested and isinstance(value, dict) and value:
            yield from _leaves(value, tested, f"{path}.")
        else:
            yield path


def environment(objects: helm.Objects) -> dict[str, str]:
    """Return the variables of the gateway's settings."""
    return dict(objects["ConfigMap/visiongate-settings"]["data"])


def test_the_gateway_takes_its_settings() -> None:
    given = {
        "max_bytes_in_flight": 2147483648,
        "max_caller_share": 0.25,
        "uri_hosts": ["a.example.com", ".b.example.com:8443"],
        "inference_sdk_routes": True,
        "max_connection_age_s": "inf",
        "http_hosts": ["own.example.com"],
        "required_services": ["TextService"],
    }
    values = {"gateway": {"settings": given}, "apiKeys": {"existingSecret": "keys"}}
    variables = environment(helm.template(values))
    assert variables["VISIONGATE_MAX_BYTES_IN_FLIGHT"] == "2147483648"
    settings = settings_sources.load({}, variables, None).settings
    assert settings.max_bytes_in_flight == 2147483648
    assert settings.max_caller_share == 0.25
    assert settings.uri_hosts == ("a.example.com", ".b.example.com:8443")
    assert settings.inference_sdk_routes
    assert settings.max_connection_age_s == math.inf
    assert settings.api_keys == Path("/etc/visiongate/api-keys/keys.toml")
    # As by default in the chart, beside what is given.
    assert (settings.drain_s, settings.grace_s, settings.log_format) == (5, 20, "json")
    assert {"own.example.com", "visiongate.visiongate.svc"} <= set(settings.http_hosts)


def test_new_settings_restart_the_gateway_and_not_triton() -> None:
    before, after = (
        helm.template(TRITON_APART | {"gateway": {"settings": {"max_images": images}}}) for images in (8, 9)
    )
    annotations = "spec template metadata annotations"
    assert at(before, f"Deployment/visiongate {annotations}") != at(
        after, f"Deployment/visiongate {annotations}"
    )
    assert before["Deployment/visiongate-triton"] == after["Deployment/visiongate-triton"]


def test_a_pod_has_the_time_to_answer_its_calls() -> None:
    values = {"gateway": {"settings": {"drain_s": 12.5, "grace_s": 60}}}
    assert at(helm.template(values), f"{POD} terminationGracePeriodSeconds") == 78
    assert at(helm.template(), f"{POD} terminationGracePeriodSeconds") == 30


def test_a_sidecar_is_reached_by_its_gateway_alone_and_outlives_it() -> None:
    objects = helm.template({"networkPolicy": {"enabled": True}})
    triton = at(objects, SIDECAR)
    assert triton["restartPolicy"] == "Always"
    assert {"--grpc-address=127.0.0.1", "--http-address=127.0.0.1"} <= set(triton["args"])
    # Its metrics are for Prometheus, which asks the pod from outside.
    assert "--metrics-address=0.0.0.0" in triton["args"]
    assert [port["containerPort"] for port in triton["ports"]] == [8002]
    ingress = objects["NetworkPolicy/visiongate"]["spec"]["ingress"]
    assert {port["port"] for rule in ingress for port in rule["ports"]} == {50051, 8080, 9090, 8002}
    assert environment(objects)["VISIONGATE_TRITON"] == "127.0.0.1:8001"
    assert not {name for name in objects if name.endswith("-triton")}


def test_tritons_apart_are_reached_by_gateways_alone() -> None:
    objects = helm.template(TRITON_APART | {"networkPolicy": {"enabled": True}})
    policy = objects["NetworkPolicy/visiongate-triton"]["spec"]
    from_gateways, from_monitoring = policy["ingress"]
    gateway = objects["Deployment/visiongate"]["spec"]["selector"]["matchLabels"]
    assert from_gateways["from"] == [{"podSelector": {"matchLabels": gateway}}]
    assert [port["port"] for port in from_gateways["ports"]] == [8001]
    assert [port["port"] for port in from_monitoring["ports"]] == [8002]
    assert policy["podSelector"]["matchLabels"] == at(objects, "Service/visiongate-triton spec selector")
    assert at(objects, "Service/visiongate-triton spec clusterIP") == "None"
    assert environment(objects)["VISIONGATE_TRITON"] == "dns:///visiongate-triton:8001"
    assert at(objects, f"{POD} initContainers triton") is None
    assert at(objects, f"{TRITON} restartPolicy") is None
    arguments = at(objects, f"{TRITON} args")
    assert not [it for it in arguments if it.startswith(("--grpc-address", "--http-address"))]


def test_pods_with_ipv6_addresses() -> None:
    objects = helm.template(TRITON_APART | {"gateway": {"listenHost": "::"}})
    assert environment(objects)["VISIONGATE_HOST"] == environment(objects)["VISIONGATE_METRICS_HOST"] == "::"
    # As Triton's gRPC and HTTP libraries write it.
    addresses = {"--grpc-address=[::]", "--http-address=ipv6:::", "--metrics-address=ipv6:::"}
    assert addresses <= set(at(objects, f"{TRITON} args"))


@pytest.mark.parametrize("kind", ["hpa", "keda"])
@pytest.mark.parametrize("mode", ["sidecar", "separate"])
def test_what_scales_has_no_replicas(kind: str, mode: str) -> None:
    scaling = {"kind": kind, "prometheusAddress": "http://p"}
    objects = helm.template({"autoscaling": scaling, "triton": {"mode": mode}})
    for name, it in objects.items():
        if name.startswith("Deployment/"):
            assert "replicas" not in it["spec"]
    scalers = {name.partition("/")[0] for name in objects} & {"HorizontalPodAutoscaler", "ScaledObject"}
    assert scalers == {"hpa": {"HorizontalPodAutoscaler"}, "keda": {"ScaledObject"}}[kind]
    scaled = {name for name in objects if name.partition("/")[0] in scalers}
    assert len(scaled) == {"sidecar": 1, "separate": 2}[mode]


def test_queries_are_about_the_pods_of_this_release() -> None:
    scaling = {"kind": "keda", "prometheusAddress": "http://p"}
    apart = helm.template({"autoscaling": scaling, "triton": {"mode": "separate"}})
    beside = helm.template({"autoscaling": scaling})
    gateway = 'namespace="visiongate",pod=~"visiongate-[a-z0-9]+-[a-z0-9]+"'
    triton = 'namespace="visiongate",pod=~"visiongate-triton-[a-z0-9]+-[a-z0-9]+"'
    for objects, name, labels in (
        (apart, "visiongate", gateway),
        (apart, "visiongate-triton", triton),
        (beside, "visiongate", gateway),
    ):
        triggers = at(objects, f"ScaledObject/{name} spec triggers")
        for trigger in triggers:
            query = trigger["metadata"]["query"]
            assert query.count("{") == query.count(labels) > 0, query
    names = at(beside, "ScaledObject/visiongate spec triggers")
    assert [it["name"] for it in names] == ["calls", "refusals", "pending", "queue"]


def test_secrets_are_folders_whose_renewal_is_seen() -> None:
    values = {
        "apiKeys": {"existingSecret": "keys"},
        "tls": {"existingSecret": "certificate", "clientCa": {"existingSecret": "clients"}},
    }
    objects = helm.template(values)
    mounts = at(objects, f"{GATEWAY} volumeMounts")
    secrets = [it for it in mounts if it["mountPath"].startswith("/etc/visiongate/")]
    assert len(secrets) == 4
    assert all("subPath" not in it and it["readOnly"] for it in secrets)
    folders = {it["mountPath"] for it in secrets}
    files = [it for name, it in environment(objects).items() if it.startswith("/etc/")]
    assert {it.rpartition("/")[0] for it in files} == folders
    # With TLS the ports are no plain HTTP/2 any more.
    assert at(objects, "Service/visiongate spec ports grpc appProtocol") is None
    assert at(objects, "Service/visiongate spec ports http appProtocol") == "https"
    assert at(helm.template(), "Service/visiongate spec ports grpc appProtocol") == "kubernetes.io/h2c"
    # `helm test` has no certificate to show.
    assert "Pod/visiongate-test-health" not in objects


def test_the_first_image_id_secret_is_random() -> None:
    place = "Secret/visiongate-image-ids data image_id_secret"
    secrets = {at(helm.template(values), place) for values in ({}, TRITON_APART)}
    assert [len(base64.b64decode(secret)) for secret in secrets] == [32, 32]


def test_a_gateway_alone_copies_only_tokenizers() -> None:
    """Without Triton in its pod it needs nothing else of gigabytes of models."""
    beside = helm.template({"models": {"source": "initImage"}})
    apart = helm.template(TRITON_APART | {"models": {"source": "initImage"}})
    copy_all = ["cp", "-R", "/models/.", "/copy"]
    assert at(beside, f"{POD} initContainers copy-models command") == copy_all
    assert at(apart, f"{TRITON_POD} initContainers copy-models command") == copy_all
    assert at(apart, f"{POD} initContainers copy-models command") != copy_all


def test_tokenizers_are_copied_with_their_folders(tmp_path: Path) -> None:
    """The script of that container, in folders of this test."""
    apart = helm.template(TRITON_APART | {"models": {"source": "initImage"}})
    models, copies = tmp_path / "models", tmp_path / "copy"
    for name in ("clip_text/tokenizer.json", "clip_text/1/model.onnx", "gaze/1/model.onnx"):
        (models / name).parent.mkdir(parents=True, exist_ok=True)
        (models / name).write_text(name)
    copies.mkdir()
    *shell, script = at(apart, f"{POD} initContainers copy-models command")
    script = script.replace("/models", str(models)).replace("/copy", str(copies))
    subprocess.run([*shell, script], check=True)
    assert [str(it.relative_to(copies)) for it in copies.rglob("*.*")] == ["clip_text/tokenizer.json"]


def test_an_export_is_waited_for_and_done_once() -> None:
    values: dict[str, Any] = {"source": "pvc", "export": {"enabled": True}}
    objects = helm.template({"models": values})
    other = helm.template({"models": values | {"export": {"enabled": True, "args": ["gaze"]}}})
    later = helm.template({"models": values, "triton": {"shmSize": "2Gi"}})
    larger = helm.template({"models": values | {"export": {"enabled": True, "tmpSize": "50Gi"}}})

    def marker(of: helm.Objects) -> Any:
        written = at(of, f"{EXPORT} command")
        waited = at(of, f"{POD} initContainers wait-for-export command")
        assert written[3] == waited[3]
        return written[3]

    def job(of: helm.Objects) -> str:
        return next(name for name in of if name.startswith("Job/"))

    # Another export has a marker of its own, and the pods wait for that.
    assert marker(other) != marker(objects) == marker(later) == marker(larger)
    # A Job that changes needs another name, and one that does not must not run again.
    assert job(later) == job(objects)
    assert len({job(objects), job(other), job(larger)}) == 3
    annotation = "Deployment/visiongate spec template metadata annotations checksum/models"
    assert at(other, annotation) != at(objects, annotation) == at(later, annotation)
    order = at(objects, f"{POD} initContainers")
    assert [it["name"] for it in order] == ["wait-for-export", "triton"]


def test_the_bucket_is_read_by_identity_alone() -> None:
    values = {
        "models": {"source": "s3", "s3": {"bucket": "b", "region": "eu-1"}},
        "triton": {"mode": "separate"},
    }
    objects = helm.template(values | {"networkPolicy": {"enabled": True}})
    assert "secret_access_key" not in str(objects).lower()
    assert at(objects, f"{TRITON_POD} volumes models") is None
    assert at(objects, f"{TRITON} env AWS_REGION value") == "eu-1"
    for policy in ("visiongate", "visiongate-triton"):
        rules = at(objects, f"NetworkPolicy/{policy} spec egress")
        assert 443 in {port["port"] for rule in rules for port in rule["ports"]}


@pytest.mark.parametrize(
    ("source", "volume", "mount"),
    [
        ({"source": "image"}, {"image": {"reference": "visiongate-models:0.1.0"}}, {"subPath": "models"}),
        ({"source": "initImage"}, {"emptyDir": {"sizeLimit": "20Gi"}}, {}),
        ({"source": "pvc"}, {"persistentVolumeClaim": {"claimName": "visiongate-models"}}, {}),
        ({"source": "hostPath", "hostPath": {"path": "/a"}}, {"hostPath": {"path": "/a"}}, {}),
    ],
)
def test_gateway_and_triton_have_the_same_models(
    source: dict[str, Any], volume: dict[str, Any], mount: dict[str, str]
) -> None:
    """The image has them in its folder /models."""
    objects = helm.template({"models": source})
    (kind,) = volume
    assert at(objects, f"{POD} volumes models {kind}").items() >= volume[kind].items()
    for container in (GATEWAY, SIDECAR):
        found = at(objects, f"{container} volumeMounts models")
        assert found == {"name": "models", "mountPath": "/models", "readOnly": True} | mount
    assert "--model-repository=/models" in at(objects, f"{SIDECAR} args")
    assert environment(objects)["VISIONGATE_REPOSITORY"] == "/models"


def test_gateways_reach_tritons_elsewhere_and_hosts_of_images() -> None:
    values = {
        "triton": {"mode": "external", "address": "10.0.0.7:9001, dns:///t.example.com:8001"},
        "networkPolicy": {"enabled": True},
        "gateway": {"settings": {"uri_hosts": ["images.example.com"]}},
    }
    objects = helm.template(values)
    _, triton, public = at(objects, "NetworkPolicy/visiongate spec egress")
    assert [port["port"] for port in triton["ports"]] == [9001, 8001]
    anywhere, newer = (it["ipBlock"] for it in public["to"])
    assert (anywhere["cidr"], newer["cidr"]) == ("0.0.0.0/0", "::/0")
    assert {"10.0.0.0/8", "169.254.0.0/16"} <= set(anywhere["except"])
    assert faults(objects, newest()) == []


def test_policies_let_the_test_of_the_release_in() -> None:
    callers = [{"namespaceSelector": {"matchLabels": {"team": "apps"}}}]
    policy = {"networkPolicy": {"enabled": True, "callersFrom": callers}}
    peers = at(helm.template(policy), "NetworkPolicy/visiongate spec ingress 0 from")
    labels = at(helm.template(policy), "Pod/visiongate-test-health metadata labels")
    assert peers[0] == callers[0]
    assert peers[1]["podSelector"]["matchLabels"].items() <= labels.items()
    without = helm.template(policy | {"helmTest": {"enabled": False}})
    assert at(without, "NetworkPolicy/visiongate spec ingress 0 from") == callers


def test_triton_knows_its_arguments() -> None:
    """One that it does not know ends it at the start. Triton from pip is older than the chart's."""
    environment = ensure_environment(print)
    program = triton_folder(environment) / "bin" / "tritonserver"
    asked = subprocess.run(
        [program, "--help"], env=process_environment(environment), capture_output=True, text=True, check=False
    )
    known = set(re.findall(r"--[a-z-]+", asked.stdout + asked.stderr))
    # Newer ones alone know the argument of this value, and need it.
    values = {"triton": {"modelControl": "explicit", "loadModels": ["gaze"], "clientSharedMemory": False}}
    name, *arguments = at(helm.template(values), f"{SIDECAR} args")
    assert name == "tritonserver"
    assert {it.partition("=")[0] for it in arguments} <= known

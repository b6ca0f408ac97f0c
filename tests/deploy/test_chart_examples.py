"""What is shipped ready-made: examples of values, the plain manifest, and those of kustomize and KServe."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import helm
from deploy.manifests import render
from gateway import settings_sources
from kubernetes_objects import dangling, faults, insecure, newest

DEPLOY = Path(__file__).parents[2] / "deploy"
EXAMPLES = sorted((DEPLOY / "helm" / "examples").glob("*.yaml"))
OLDEST = {
    **{"laptop": "1.29", "cpu-cluster": "1.33", "gpu-cluster": "1.29", "mig": "1.29", "gpu-claims": "1.34"},
    "batch": "1.33",
}
"""The oldest Kubernetes that each example needs."""

GIVEN = {
    *(f"Secret/{name}" for name in ("registry", "visiongate-keys", "visiongate-image-ids", "batch-key")),
    "PersistentVolumeClaim/scans",
}
"""What the examples' comments tell to make."""


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_rendered_and_valid(path: Path) -> None:
    values = yaml.safe_load(path.read_text())
    for version in (OLDEST[path.stem], newest()):
        objects = helm.template(values, version=version)
        assert faults(objects, version) == []
    assert dangling(objects, GIVEN) == []
    assert insecure(objects) == []


def test_there_is_an_example_for_each_kind_of_cluster() -> None:
    assert {path.stem for path in EXAMPLES} == OLDEST.keys()


@pytest.mark.parametrize("path", [helm.CHART / "values.yaml", *EXAMPLES], ids=lambda path: path.stem)
def test_a_gateway_has_the_memory_that_its_settings_allow(path: Path) -> None:
    """README's rule: twice the bytes in flight, the caches, 150 MB, and a third more."""
    objects = helm.template(yaml.safe_load(path.read_text()), version=newest())
    variables = objects["ConfigMap/visiongate-settings"]["data"]
    settings = settings_sources.load({}, variables, None).settings
    (gateway,) = objects["Deployment/visiongate"]["spec"]["template"]["spec"]["containers"]
    caches = (
        settings.image_cache_bytes
        + settings.sam_embedding_cache_bytes
        + settings.clip_image_cache_bytes
        + settings.clip_text_cache_bytes
    )
    needed = settings.processes * (2 * settings.max_bytes_in_flight + caches + 150e6) * 4 / 3
    limit, unit = gateway["resources"]["limits"]["memory"][:-2], gateway["resources"]["limits"]["memory"][-2:]
    assert needed <= int(limit) * {"Mi": 1 << 20, "Gi": 1 << 30}[unit]


def test_the_engines_of_a_part_of_a_gpu_are_built_on_one() -> None:
    objects = helm.template(yaml.safe_load((DEPLOY / "helm" / "examples" / "mig.yaml").read_text()))
    (job,) = (it for name, it in objects.items() if name.startswith("Job/"))
    pods = [job["spec"]["template"], objects["Deployment/visiongate-triton"]["spec"]["template"]]
    for pod in pods:
        assert pod["spec"]["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
        assert pod["spec"]["runtimeClassName"] == "nvidia"
        assert pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/mig-2g.20gb"] == 1


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((helm.CHART / "Chart.yaml").read_text())
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]
    assert chart["version"] == chart["appVersion"] == project["version"]


def test_the_plain_manifest_is_fresh() -> None:
    """If it is not: `make manifests`."""
    objects = helm.objects(render.MANIFEST.read_text())
    # Other Helms than the one that wrote it may order or indent it in other ways.
    assert objects == helm.objects(render.rendered(helm.find("helm")))
    assert faults(objects, newest()) == []
    assert dangling(objects, GIVEN) == []
    assert insecure(objects) == []
    assert not [name for name in objects if name.startswith("Secret/")]


def test_kustomize_changes_the_plain_manifest() -> None:
    output = helm.run("kubectl", "kustomize", DEPLOY / "kustomize")
    assert output.returncode == 0, output.stderr
    objects = helm.objects(output.stdout)
    assert faults(objects, newest()) == []
    assert dangling(objects, GIVEN) == []
    assert {it["metadata"]["namespace"] for it in objects.values()} == {"vision"}
    pod = objects["Deployment/visiongate"]["spec"]["template"]["spec"]
    (gateway,), (triton,) = pod["containers"], pod["initContainers"]
    assert gateway["image"].startswith("registry.example.com/")
    assert triton["resources"]["limits"] == {"nvidia.com/gpu": 1, "memory": "12Gi"}
    # Later variables go before earlier ones.
    variables: dict[str, str] = {}
    for source in gateway["envFrom"]:
        variables |= objects[f"ConfigMap/{source['configMapRef']['name']}"]["data"]
    settings = settings_sources.load({}, variables, None).settings
    assert settings.max_call_s == 60
    assert "visiongate.vision" in settings.http_hosts
    assert settings.drain_s == 5


def test_kserve_knows_the_runtime() -> None:
    folder = DEPLOY / "kserve"
    texts = [(folder / name).read_text() for name in ("servingruntime.yaml", "inferenceservice.yaml")]
    objects = helm.objects("\n---\n".join(texts))
    assert faults(objects, newest()) == []
    runtime = objects["ServingRuntime/visiongate"]
    model = objects["InferenceService/visiongate"]["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"]["name"] in {it["name"] for it in runtime["spec"]["supportedModelFormats"]}
    gateway, triton = runtime["spec"]["containers"]
    # KServe takes requests to the container of this name, and speaks HTTP/2 by the name of its port.
    assert gateway["name"] == "kserve-container"
    assert [(it["name"], it["containerPort"]) for it in gateway["ports"]] == [("h2c", 50051)]
    assert "ports" not in triton
    variables = {it["name"]: it["value"] for it in gateway["env"]}
    settings = settings_sources.load({}, variables, None).settings
    assert settings.triton == "127.0.0.1:8001"
    # KServe leaves a pod 30 seconds to stop. Triton must be there for as long as the gateway may need it.
    assert settings.drain_s + settings.grace_s + 5 <= 30
    assert int(triton["lifecycle"]["preStop"]["exec"]["command"][1]) < 30
    volumes = {it["name"] for it in runtime["spec"]["volumes"]}
    for container in (gateway, triton):
        assert {it["name"] for it in container["volumeMounts"]} <= volumes


def test_one_release_of_triton_everywhere() -> None:
    """Whatever is deployed runs the same image, and none that may die of a cancelled request."""
    values = yaml.safe_load((helm.CHART / "values.yaml").read_text())
    year, month = map(int, values["triton"]["image"]["tag"].removesuffix("-py3").split("."))
    assert (year, month) >= (25, 4)
    image = "{repository}:{tag}".format(**values["triton"]["image"])
    for path in DEPLOY.rglob("*.yaml"):
        assert set(re.findall(r"\S*/tritonserver:\S+", path.read_text())) <= {image}, path


@pytest.mark.parametrize("mode", ["sidecar", "separate"])
def test_notes_teach_the_first_call(mode: str) -> None:
    notes = helm.notes({"triton": {"mode": mode}})
    assert "visiongate detect photo.jpg cup\n" in notes
    assert "port-forward service/visiongate 50051:50051" in notes
    named = {
        "sidecar": "deployment/visiongate -c triton",
        "separate": "deployment/visiongate-triton -c triton",
    }
    assert named[mode] in notes
    assert "apiKeys.existingSecret asks for keys" in notes
    with_keys = helm.notes({"apiKeys": {"existingSecret": "a"}, "tls": {"existingSecret": "b"}})
    assert "VISIONGATE_API_KEY" in with_keys
    assert "visiongate detect photo.jpg cup --tls" in with_keys
    assert "asks for keys" not in with_keys

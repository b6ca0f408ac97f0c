"""What the chart refuses: each with the name of the value."""

from typing import Any

import pytest

import helm
from deploy.helm import schema
from gateway.settings import Settings
from kubernetes_objects import newest


def test_the_schema_is_fresh() -> None:
    """If it is not: `make manifests`."""
    assert schema.SCHEMA.read_text() == schema.text()


def test_comments_are_descriptions() -> None:
    """A comment of several lines, and what follows `@schema`, reach the schema."""
    properties = schema.values_schema()["properties"]
    mode = properties["triton"]["properties"]["mode"]
    assert mode["enum"] == ["sidecar", "separate", "external"]
    assert mode["description"].startswith("sidecar: one in each gateway pod")
    assert mode["description"].endswith("external: Tritons at `address`, not of this chart.")


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a misspelt value": ({"gatewey": {}}, "'gatewey' not allowed"),
    "one further below": ({"models": {"pvc": {"sise": "1Gi"}}}, "'sise' not allowed"),
    "a word for a number": ({"triton": {"replicas": "two"}}, "/triton/replicas"),
    "a number for a word": ({"triton": {"image": {"tag": 26}}}, "/triton/image/tag"),
    "a negative number": ({"triton": {"gpu": {"count": -1}}}, "/triton/gpu/count"),
    "an unknown choice": ({"models": {"source": "nfs"}}, "/models/source"),
    "two ways to scale": ({"autoscaling": {"kind": ["hpa", "keda"]}}, "/autoscaling/kind"),
    "no size": ({"gateway": {"shmSize": "1Gb"}}, "/gateway/shmSize"),
    "a misspelt key of Kubernetes": ({"gateway": {"tolerations": [{"kye": "x"}]}}, "'kye' not allowed"),
    "a container without a name": ({"triton": {"sidecars": [{"image": "x"}]}}, "/triton/sidecars/0"),
    "no digest": ({"gateway": {"image": {"digest": "sha256:12"}}}, "/gateway/image/digest"),
    "a path that is none": ({"gateway": {"readinessPath": "/healthz"}}, "/gateway/readinessPath"),
    "no setting": ({"gateway": {"settings": {"max_imags": 3}}}, "'max_imags'"),
    "a setting of a wrong kind": ({"gateway": {"settings": {"log_level": "loud"}}}, "/settings/log_level"),
    "a setting out of range": ({"gateway": {"settings": {"max_images": 0}}}, "/settings/max_images"),
    "a setting of the chart's": ({"gateway": {"settings": {"api_keys": "/k"}}}, "'api_keys'"),
    "a trigger without a threshold": (
        {"gateway": {"autoscaling": {"triggers": [{"name": "a", "query": "b", "metricType": "Value"}]}}},
        "'threshold'",
    ),
}  # fmt: skip


def test_wrong_values_stop_at_lint() -> None:
    assert helm.lint({}) == ""
    together: dict[str, Any] = {}
    for values, _ in WRONG.values():
        merge(together, values)
    said = helm.lint(together)
    assert [name for name, (_, words) in WRONG.items() if words not in said] == []


def merge(into: dict[str, Any], values: dict[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"gateway": {"terminationGracePeriodSeconds": 20}},
            "gateway.terminationGracePeriodSeconds: 20 is less",
        ),
        ({"triton": {"mode": "external"}}, "triton.address"),
        ({"triton": {"loadModels": ["gaze"]}}, "triton.loadModels"),
        ({"models": {"source": "s3"}}, "models.s3.bucket"),
        ({"models": {"source": "gcs"}}, "models.gcs.bucket"),
        ({"models": {"source": "hostPath"}}, "models.hostPath.path"),
        ({"models": {"export": {"enabled": True}}}, "models.export.enabled"),
        ({"autoscaling": {"kind": "keda"}}, "autoscaling.prometheusAddress"),
        (
            {"autoscaling": {"kind": "hpa"}, "gateway": {"autoscaling": {"minReplicas": 11}}},
            "gateway.autoscaling.minReplicas: 11",
        ),
        ({"tls": {"certManager": {"enabled": True}}}, "tls.certManager.issuerRef.name"),
        ({"tls": {"existingSecret": "a", "certManager": {"enabled": True}}}, "tls.existingSecret"),
        ({"tls": {"clientCa": {"existingSecret": "a"}}}, "tls.clientCa.existingSecret"),
        ({"grpcRoute": {"enabled": True}}, "grpcRoute.parentRefs"),
        (
            {
                "httpRoute": {"enabled": True, "parentRefs": [{"name": "a"}]},
                "gateway": {"http": {"enabled": False}},
            },
            "httpRoute.enabled",
        ),
        ({"ingress": {"grpc": {"enabled": True}}}, "ingress.grpc.hosts"),
        (
            {
                "ingress": {"http": {"enabled": True, "hosts": ["a"]}},
                "gateway": {"http": {"enabled": False}},
            },
            "ingress.http.enabled",
        ),
        ({"serviceAccount": {"create": False}}, "serviceAccount.name"),
        ({"networkPolicy": {"enabled": True, "metricsFrom": []}}, "networkPolicy.metricsFrom"),
    ],
)
def test_values_that_contradict_each_other_are_refused(values: dict[str, Any], words: str) -> None:
    assert words in helm.lint(values)


def test_what_lint_refuses_is_not_rendered() -> None:
    with pytest.raises(helm.HelmError, match=r"models\.s3\.bucket: models\.source s3 needs it"):
        helm.template({"models": {"source": "s3"}})


def test_image_volumes_need_a_kubernetes_that_has_them() -> None:
    with pytest.raises(helm.HelmError, match=r"models\.source: image needs Kubernetes 1\.33, this is v1\.32"):
        helm.template(version="1.32")
    assert helm.template({"models": {"source": "initImage"}}, version="1.32")
    with pytest.raises(helm.HelmError, match=r"requires kubeVersion: >=1\.29"):
        helm.template({"models": {"source": "initImage"}}, version="1.28")


def test_settings_are_the_chart_s_or_the_user_s() -> None:
    """What templates set is what the schema refuses; http_hosts alone has parts of both."""
    values = {
        "apiKeys": {"existingSecret": "a"},
        "tls": {"existingSecret": "b", "clientCa": {"existingSecret": "c"}},
        "gateway": {"settings": dict.fromkeys(("drain_s", "grace_s", "log_format", "max_connection_age_s"))},
    }
    data = helm.template(values, version=newest())["ConfigMap/visiongate-settings"]["data"]
    of_templates = {name.removeprefix("VISIONGATE_").lower() for name in data}
    assert of_templates - {"http_hosts"} == schema.OF_THE_CHART
    given = schema.values_schema()["definitions"]["settings"]["properties"]
    assert given.keys() | schema.OF_THE_CHART == Settings.model_fields.keys()

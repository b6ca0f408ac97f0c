"""Batch jobs of the chart: pods whose arguments `visiongate batch` understands, and what is tried again."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

import helm
from deploy.helm import schema
from kubernetes_objects import faults, newest
from visiongate import cli
from visiongate.batch.tasks import TASK_NAMES
from visiongate.ray import Ask

PHOTOS: dict[str, Any] = {
    "name": "photos",
    "task": "embed",
    "inputs": ["s3://a/b c/*.jpg"],
    "out": "s3://a/out",
}


def job(more: dict[str, Any] | None = None, **values: Any) -> dict[str, Any]:
    """Return the one Job of a job with these values."""
    objects = helm.template({"batch": {"jobs": [PHOTOS | (more or {})]}, **values})
    (found,) = (it for name, it in objects.items() if name.startswith("Job/"))
    assert faults({"Job": found}, newest()) == []
    return found


def container(job: dict[str, Any]) -> dict[str, Any]:
    (found,) = job["spec"]["template"]["spec"]["containers"]
    return dict(found)


def understood(arguments: list[str]) -> dict[str, Any]:
    """Return the values that the command line reads from arguments, without doing anything."""
    command: Any = get_command(cli.app)
    for word in arguments[:2]:
        command = command.get_command(command.make_context("x", ["--help"], resilient_parsing=True), word)
    values: dict[str, Any] = command.make_context(arguments[1], arguments[2:]).params
    return values


def test_a_job_is_a_command_that_visiongate_understands() -> None:
    args = container(job({"args": ["--model", "large model", "--retry-failed"]}))["args"]
    values = understood(args)
    assert args[:2] == ["batch", "embed"]
    assert values["inputs"] == ["s3://a/b c/*.jpg"]
    assert values["out"] == "s3://a/out"
    assert values["model"] == "large model"
    assert values["server"] == ["visiongate.visiongate.svc:50051"]
    assert values["retry_failed"]
    assert values["json_log"]
    assert values["shard"] == "0/1"


def test_shards_are_pods_that_know_their_part() -> None:
    spec = job({"shards": 12, "parallelism": 5})["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 12, 5)
    args = container({"spec": spec})["args"]
    # Kubernetes puts the variable's value in its place.
    assert understood([word.replace("$(JOB_COMPLETION_INDEX)", "7") for word in args])["shard"] == "7/12"
    assert job({"shards": 3})["spec"]["parallelism"] == 3


def test_only_what_can_heal_is_tried_again() -> None:
    spec = job({"retries": 1})["spec"]
    assert spec["backoffLimitPerIndex"] == 1
    assert job()["spec"]["backoffLimitPerIndex"] == 3
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    by_code = {
        code: rule["action"]
        for rule in spec["podFailurePolicy"]["rules"]
        for code in rule.get("onExitCodes", {"values": ["moved"]})["values"]
    }
    # 2 is what wrong arguments end with; 1, an error that may pass, counts as a try.
    assert by_code == {2: "FailJob", 3: "FailJob", "moved": "Ignore", 130: "Ignore", 143: "Ignore"}
    names = {
        rule["onExitCodes"]["containerName"]
        for rule in spec["podFailurePolicy"]["rules"]
        if "onExitCodes" in rule
    }
    assert names == {container({"spec": spec})["name"]}


def test_a_job_asks_with_tls_and_a_key() -> None:
    own = {"existingSecret": "batch-key", "key": "k"}
    found = job(
        {"apiKey": own},
        tls={"certManager": {"enabled": True, "issuerRef": {"name": "ca"}}},
        apiKeys={"existingSecret": "keys"},
    )
    values = understood(container(found)["args"])
    assert values["tls"]
    (mount,) = (it for it in container(found)["volumeMounts"] if it["name"] == "tls")
    assert str(values["ca"]) == f"{mount['mountPath']}/ca.crt"
    (variable,) = container(found)["env"]
    assert variable["name"] == "VISIONGATE_API_KEY"
    assert variable["valueFrom"]["secretKeyRef"] == {"name": "batch-key", "key": "k"}
    (volume,) = (it for it in found["spec"]["template"]["spec"]["volumes"] if it["name"] == "tls")
    assert [it["key"] for it in volume["secret"]["items"]] == ["ca.crt"]


def test_a_job_may_ask_other_servers() -> None:
    found = job({"servers": ["a:1", "b:2"]}, apiKeys={"existingSecret": "keys"}, tls={"existingSecret": "t"})
    values = understood(container(found)["args"])
    assert values["server"] == ["a:1", "b:2"]
    assert not values["tls"]


def test_what_a_job_says_of_its_pods_is_theirs() -> None:
    more: dict[str, Any] = {
        "resources": {"limits": {"memory": "9Gi"}},
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "spot", "operator": "Exists"}],
        "extraEnv": [{"name": "AWS_REGION", "value": "eu-1"}],
        "extraVolumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        "extraVolumeMounts": [{"name": "data", "mountPath": "/data"}],
        "activeDeadlineSeconds": 99,
        "ttlSecondsAfterFinished": 0,
    }
    found = job(more)
    pod = found["spec"]["template"]["spec"]
    assert container(found)["resources"] == more["resources"]
    assert (pod["nodeSelector"], pod["tolerations"]) == (more["nodeSelector"], more["tolerations"])
    assert container(found)["env"] == more["extraEnv"]
    assert more["extraVolumes"][0] in pod["volumes"]
    assert more["extraVolumeMounts"][0] in container(found)["volumeMounts"]
    assert (found["spec"]["activeDeadlineSeconds"], found["spec"]["ttlSecondsAfterFinished"]) == (99, 0)
    assert not {"activeDeadlineSeconds", "ttlSecondsAfterFinished"} & job()["spec"].keys()


def test_a_job_that_is_changed_has_another_name_of_a_length_for_hosts() -> None:
    long = {"name": "a" * 20, "shards": 100_000}
    names = [
        job(more, fullnameOverride="n" * 50)["metadata"]["name"]
        for more in (long, long | {"out": "s3://other"})
    ]
    assert names[0] != names[1]
    # The host name of a pod is the Job's with its index.
    assert all(len(f"{name}-99999") <= 63 for name in names)


def test_gateways_let_the_jobs_in() -> None:
    values = {
        "networkPolicy": {
            "enabled": True,
            "callersFrom": [{"podSelector": {"matchLabels": {"app": "caller"}}}],
        },
        "batch": {"jobs": [PHOTOS]},
    }
    objects = helm.template(values)
    peers = objects["NetworkPolicy/visiongate"]["spec"]["ingress"][0]["from"]
    (found,) = (it for name, it in objects.items() if name.startswith("Job/"))
    labels = found["spec"]["template"]["metadata"]["labels"].items()
    assert any(peer["podSelector"]["matchLabels"].items() <= labels for peer in peers)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"batch": {"jobs": [PHOTOS, PHOTOS]}}, "batch.jobs: two are called photos"),
        (
            {"batch": {"jobs": [PHOTOS]}, "apiKeys": {"existingSecret": "k"}},
            "batch.jobs: photos needs an apiKey",
        ),
        (
            {
                "batch": {"jobs": [PHOTOS]},
                "tls": {"existingSecret": "t", "clientCa": {"existingSecret": "c"}},
            },
            "batch.jobs: photos needs a certificate",
        ),
        ({"batch": {"jobs": [PHOTOS | {"task": "count"}]}}, "/batch/jobs/0/task"),
        ({"batch": {"jobs": [PHOTOS | {"name": "Photos"}]}}, "/batch/jobs/0/name"),
        ({"batch": {"jobs": [PHOTOS | {"shards": 0}]}}, "/batch/jobs/0/shards"),
        ({"batch": {"jobs": [PHOTOS | {"shard": 2}]}}, "'shard' not allowed"),
        ({"batch": {"jobs": [{"name": "photos"}]}}, "'task'"),
    ],
)
def test_jobs_that_cannot_run_are_refused(values: dict[str, Any], words: str) -> None:
    assert words in helm.lint(values)


def test_the_schema_knows_every_task() -> None:
    tasks = schema.values_schema()["definitions"]["batchJob"]["properties"]["task"]["enum"]
    assert sorted(tasks) == sorted(TASK_NAMES)


def test_the_image_of_jobs_has_the_clients_extra() -> None:
    dockerfile = (Path(__file__).parents[2] / "deploy/docker/gateway.Dockerfile").read_text()
    (build,) = re.findall(
        r"^#   docker build .*--build-arg EXTRAS=(\S+) --tag (\S+) \.$", dockerfile, re.MULTILINE
    )
    values = yaml.safe_load((helm.CHART / "values.yaml").read_text())
    assert build == ("batch", values["batch"]["image"]["repository"])


def test_kuberay_knows_the_job_of_ray() -> None:
    objects = helm.objects((Path(__file__).parents[2] / "deploy/ray/rayjob.yaml").read_text())
    assert faults(objects, newest()) == []
    spec = objects["RayJob/visiongate-embed"]["spec"]
    head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    (worker,) = (group["template"]["spec"] for group in spec["rayClusterSpec"]["workerGroupSpecs"])
    # The script is where the job looks for it, and only workers ask.
    (mount,) = head["containers"][0]["volumeMounts"]
    (volume,) = head["volumes"]
    assert (mount["name"], volume["configMap"]["name"]) == (volume["name"], "visiongate-embed")
    script = objects["ConfigMap/visiongate-embed"]["data"]
    assert spec["entrypoint"].removeprefix("python ").removeprefix(f"{mount['mountPath']}/") in script
    assert head["containers"][0]["image"] == worker["containers"][0]["image"]
    assert "VISIONGATE_SERVER" in {variable["name"] for variable in worker["containers"][0]["env"]}
    # It gives the step what it takes. Ray itself is tried by `make ray`.
    calls = [node for node in ast.walk(ast.parse(script["embed.py"])) if isinstance(node, ast.Call)]
    (call,) = (it for it in calls if isinstance(it.func, ast.Attribute) and it.func.attr == "map_batches")
    assert ast.unparse(call.args[0]) == "visiongate.ray.Ask"
    (keywords,) = (it.value for it in call.keywords if it.arg == "fn_constructor_kwargs")
    Ask(**ast.literal_eval(keywords))

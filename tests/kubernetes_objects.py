"""Checks of Kubernetes objects without a cluster: each by itself, and what they say of one another."""

import json
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

CRDS = Path(__file__).parent / "deploy" / "crds"
"""Schemas of kinds that are not Kubernetes' own. `kubernetes#/$defs/…` in them are Kubernetes' types."""

RESTRICTED_VOLUMES = {
    *("configMap", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected"),
    "secret",
}

Object = Mapping[str, Any]
Objects = Mapping[str, Object]


def newest() -> str:
    """Return the newest version of Kubernetes whose schemas are there: 1.37, for instance."""
    return str(kubernetes_validate.latest_version()).rpartition(".")[0]


def faults(objects: Objects, version: str) -> list[str]:
    """Return what a Kubernetes of this version would refuse, or drop without a word: a misspelt key."""
    found = []
    for name, it in objects.items():
        for error in _validator(it["kind"], it["apiVersion"], version).iter_errors(it):
            found.append(f"{name} ({version}): {'.'.join(map(str, error.path))}: {error.message}")
    return found


@cache
def _validator(kind: str, api_version: str, version: str) -> Draft202012Validator:
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict"
    group, _, name = api_version.rpartition("/")
    own = CRDS / f"{kind}.yaml"
    if own.is_file():
        schema = yaml.safe_load(own.read_text())
        assert schema["properties"]["apiVersion"] == {"const": api_version}
    else:
        prefix = f"{group.partition('.')[0]}-" if group else ""
        schema = json.loads((folder / f"{kind.lower()}-{prefix}{name}.json").read_text())
    return Draft202012Validator(schema, registry=_definitions(version))


@cache
def _definitions(version: str) -> Registry[Any]:
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict"
    definitions = Resource.from_contents(json.loads((folder / "_definitions.json").read_text()))
    registry: Registry[Any] = Registry()
    with_both: Registry[Any] = registry.with_resources([("", definitions), ("kubernetes", definitions)])
    return with_both.crawl()


def dangling(objects: Objects, given: Collection[str] = ()) -> list[str]:
    """Return what objects say of others that is not so: names, ports and labels that nothing has.

    given: objects that somebody else makes, as KIND/NAME.
    """
    return [*_dangling_names(objects, given), *_dangling_labels(objects), *_dangling_ports(objects)]


def insecure(objects: Objects) -> list[str]:
    """Return what the pod security standard `restricted` would refuse, and roots that can be written."""
    found = []
    for name, pod in pods(objects):
        spec = pod["spec"]
        own = spec.get("securityContext", {})
        if own.get("runAsNonRoot") is not True or own.get("runAsUser") == 0:
            found.append(f"{name}: may run as root")
        if own.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            found.append(f"{name}: has no seccomp profile")
        if spec.get("automountServiceAccountToken") is not False:
            found.append(f"{name}: has a token for the cluster")
        for volume in spec.get("volumes", []):
            if not set(volume) - {"name"} <= RESTRICTED_VOLUMES:
                found.append(f"{name}: volume {volume['name']} is of a kind that is not allowed")
        for container in containers(pod):
            context = container.get("securityContext", {})
            if context.get("allowPrivilegeEscalation") is not False:
                found.append(f"{name}: {container['name']} may escalate privileges")
            if context.get("capabilities", {}).get("drop") != ["ALL"]:
                found.append(f"{name}: {container['name']} has capabilities")
            if context.get("readOnlyRootFilesystem") is not True:
                found.append(f"{name}: {container['name']} can write its root")
    return found


def pods(objects: Objects) -> Iterator[tuple[str, Object]]:
    """Yield pods, and the templates of pods, with the names of their objects."""
    for name, it in objects.items():
        if it["kind"] == "Pod":
            yield name, it
        elif it["kind"] in {"Deployment", "Job"}:
            yield name, it["spec"]["template"]


def containers(pod: Object) -> list[Object]:
    """Return all containers of a pod."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def _dangling_names(objects: Objects, given: Collection[str]) -> Iterator[str]:
    known = {*objects, *given}
    for it in objects.values():
        if it["kind"] == "Certificate":
            known.add(f"Secret/{it['spec']['secretName']}")
    for name, wanted in _names(objects):
        if wanted not in known:
            yield f"{name}: there is no {wanted}"
    for name, pod in pods(objects):
        volumes = [volume["name"] for volume in pod["spec"].get("volumes", [])]
        mounts = {mount["name"] for it in containers(pod) for mount in it.get("volumeMounts", [])}
        if len(set(volumes)) < len(volumes) or set(volumes) != mounts:
            yield f"{name}: volumes {sorted(volumes)}, mounts {sorted(mounts)}"
        claims = {claim["name"] for claim in pod["spec"].get("resourceClaims", [])}
        for container in containers(pod):
            wanted_claims = {claim["name"] for claim in container.get("resources", {}).get("claims", [])}
            if not wanted_claims <= claims:
                yield f"{name}: {container['name']} wants claims {wanted_claims}, there are {claims}"
            paths = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
            variables = [variable["name"] for variable in container.get("env", [])]
            if len(set(paths)) < len(paths) or len(set(variables)) < len(variables):
                yield f"{name}: {container['name']} has mounts {paths}, variables {variables}"


def _names(objects: Objects) -> Iterator[tuple[str, str]]:
    """Yield each object with those that it names."""
    for name, pod in pods(objects):
        spec = pod["spec"]
        yield name, f"ServiceAccount/{spec['serviceAccountName']}"
        for secret in spec.get("imagePullSecrets", []):
            yield name, f"Secret/{secret['name']}"
        for claim in spec.get("resourceClaims", []):
            yield name, f"ResourceClaimTemplate/{claim['resourceClaimTemplateName']}"
        for wanted in (*_in_volumes(pod), *_in_variables(pod)):
            yield name, wanted
    for name, it in objects.items():
        if target := it.get("spec", {}).get("scaleTargetRef"):
            yield name, f"{target['kind']}/{target['name']}"


def _in_volumes(pod: Object) -> Iterator[str]:
    kinds = {
        "secret": ("Secret", "secretName"),
        "configMap": ("ConfigMap", "name"),
        "persistentVolumeClaim": ("PersistentVolumeClaim", "claimName"),
    }
    for volume in pod["spec"].get("volumes", []):
        for key in volume.keys() & kinds.keys():
            kind, field = kinds[key]
            yield f"{kind}/{volume[key][field]}"


def _in_variables(pod: Object) -> Iterator[str]:
    for container in containers(pod):
        for source in container.get("envFrom", []):
            yield f"ConfigMap/{source['configMapRef']['name']}"
        for variable in container.get("env", []):
            if secret := variable.get("valueFrom", {}).get("secretKeyRef"):
                yield f"Secret/{secret['name']}"


def _dangling_labels(objects: Objects) -> Iterator[str]:
    templates = [pod["metadata"].get("labels", {}) for _, pod in pods(objects)]
    for name, labels in _selectors(objects):
        if not any(labels.items() <= template.items() for template in templates):
            yield f"{name}: no pod has the labels {labels}"
    for name, it in objects.items():
        if it["kind"] == "Deployment":
            labels = it["spec"]["template"]["metadata"]["labels"]
            selected = it["spec"]["selector"]["matchLabels"]
            if not selected.items() <= labels.items():
                yield f"{name}: its own pods have {labels}"
            for constraint in it["spec"]["template"]["spec"].get("topologySpreadConstraints", []):
                if constraint["labelSelector"]["matchLabels"] != selected:
                    yield f"{name}: spreads other pods than its own"


def _selectors(objects: Objects) -> Iterator[tuple[str, Mapping[str, str]]]:
    for name, it in objects.items():
        spec = it.get("spec", {})
        if it["kind"] == "Service":
            yield name, spec["selector"]
        elif it["kind"] == "PodDisruptionBudget":
            yield name, spec["selector"]["matchLabels"]
        elif it["kind"] == "NetworkPolicy":
            yield name, spec["podSelector"]["matchLabels"]
            for rule in (*spec.get("ingress", []), *spec.get("egress", [])):
                for peer in (*rule.get("from", []), *rule.get("to", [])):
                    if "podSelector" in peer and "namespaceSelector" not in peer:
                        yield name, peer["podSelector"]["matchLabels"]


def _dangling_ports(objects: Objects) -> Iterator[str]:
    for name, pod in pods(objects):
        for container in containers(pod):
            probes = (container.get(f"{kind}Probe", {}) for kind in ("startup", "liveness", "readiness"))
            for port in {probe["httpGet"]["port"] for probe in probes if "httpGet" in probe}:
                if port not in _ports([container]):
                    yield f"{name}: {container['name']} has no port {port} for its probes"
    for name, labels, port in _wanted_ports(objects):
        if port not in _ports_of(objects, labels):
            yield f"{name}: its pods have no port {port}"
    for name, service, port in _backends(objects):
        known = objects.get(f"Service/{service}", {}).get("spec", {}).get("ports", [])
        if port not in {it["port"] for it in known} | {it["name"] for it in known}:
            yield f"{name}: there is no port {port} of a Service {service}"


def _wanted_ports(objects: Objects) -> Iterator[tuple[str, Mapping[str, str], str | int]]:
    """Yield ports that pods with these labels must have."""
    for name, it in objects.items():
        if it["kind"] == "Service":
            for port in it["spec"]["ports"]:
                yield name, it["spec"]["selector"], port["targetPort"]
        elif it["kind"] == "NetworkPolicy":
            for rule in it["spec"].get("ingress", []):
                for port in rule["ports"]:
                    yield name, it["spec"]["podSelector"]["matchLabels"], port["port"]


def _backends(objects: Objects) -> Iterator[tuple[str, str, str | int]]:
    for name, it in objects.items():
        for rule in it.get("spec", {}).get("rules", []) if it["kind"].endswith("Route") else []:
            for backend in rule["backendRefs"]:
                yield name, backend["name"], backend["port"]
        for rule in it["spec"]["rules"] if it["kind"] == "Ingress" else []:
            for path in rule["http"]["paths"]:
                service = path["backend"]["service"]
                yield name, service["name"], next(iter(service["port"].values()))


def _ports_of(objects: Objects, labels: Mapping[str, str]) -> set[str | int]:
    """Return names and numbers of the ports of pods with these labels."""
    found: set[str | int] = set()
    for _, pod in pods(objects):
        if labels.items() <= pod["metadata"].get("labels", {}).items():
            found |= _ports(containers(pod))
    return found


def _ports(of: list[Object]) -> set[str | int]:
    ports = [port for container in of for port in container.get("ports", [])]
    return {port["name"] for port in ports} | {port["containerPort"] for port in ports}

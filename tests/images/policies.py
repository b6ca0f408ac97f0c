"""What checkov says of deploy/, but for what is meant to be so. Run by `make images`, with checkov's program.

    PYTHONPATH=tests python -m images.policies build/checkov/bin/checkov

Exits with 1 where a check fails that is not named here.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from images.buildah import PROJECT
from soak.goals import finish

MEANT_TO_BE_SO = {
    # Dockerfiles.
    "CKV_DOCKER_2": "whoever runs the images has probes: compose.yaml and the chart",
    "CKV_DOCKER_7": "the base is an argument, whose default has a tag",
    # Kubernetes.
    "CKV_K8S_21": "the namespace is said by whoever applies the files",
    "CKV_K8S_11": "a limit of processors would slow calls while some are free",
    "CKV_K8S_15": "tags are not moved, so an image that is there is the right one",
    "CKV_K8S_43": "digests are of whoever builds the images; the chart takes them",
    "CKV2_K8S_6": "it takes the NetworkPolicy for one of other pods",
}


def main() -> None:
    [checkov] = sys.argv[1:]
    failed = failures(checkov, "dockerfile", PROJECT / "deploy/docker")
    failed |= failures(checkov, "kubernetes", PROJECT / "deploy/manifests/visiongate.yaml")
    kubectl = shutil.which("kubectl")
    for folder in [path.parent for path in sorted((PROJECT / "deploy").glob("*/kustomization.yaml"))]:
        if kubectl is None:
            print(f"{folder.relative_to(PROJECT)} is left out: there is no kubectl")
            continue
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as rendered:
            subprocess.run((kubectl, "kustomize", folder), stdout=rendered, check=True)
            failed |= failures(checkov, "kubernetes", Path(rendered.name), folder)
    finish(dict.fromkeys(sorted(failed), False))


def failures(checkov: str, framework: str, path: Path, source: Path | None = None) -> set[str]:
    """Return what fails, in words. source: what the file was made from, to tell instead of its name."""
    name = (source or path).relative_to(PROJECT)
    where = "--directory" if path.is_dir() else "--file"
    skipped = ",".join(MEANT_TO_BE_SO)
    options = ("--quiet", "--compact", "--skip-download", "--output=json")
    printed = subprocess.run(
        (checkov, *options, f"--framework={framework}", f"--skip-check={skipped}", where, path),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    ).stdout
    report = json.loads(printed)
    summary = report["summary"]
    print(f"{name}: {summary['passed']} checks passed, {summary['failed']} failed", flush=True)
    assert summary["passed"] > 0
    assert summary["parsing_errors"] == 0
    return {
        f"{name}: {each['check_id']} {each['check_name']}, {each['resource']}"
        for each in report["results"]["failed_checks"]
    }


if __name__ == "__main__":
    main()

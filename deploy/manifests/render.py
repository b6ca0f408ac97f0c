"""Renders the chart as a plain manifest, for those who have no Helm: visiongate.yaml beside this file."""

import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
MANIFEST = FOLDER / "visiongate.yaml"
_CHART = FOLDER.parent / "helm" / "visiongate"
_HEADER = """\
# The chart with its defaults, rendered by `make manifests`: two gateways, each with a Triton beside it, and
# models from an OCI image. Change values.yaml and render it anew, or see ../kustomize. Before it is applied:
#   kubectl create namespace visiongate
#   head -c 32 /dev/urandom > image_id_secret
#   kubectl --namespace visiongate create secret generic visiongate-image-ids --from-file=image_id_secret
"""


def rendered(helm: Path) -> str:
    """Return the text of the manifest. Raise CalledProcessError if Helm does not render it."""
    command = (helm, "template", "visiongate", _CHART, "--namespace", "visiongate")
    values = ("--values", FOLDER / "values.yaml", "--kube-version", "1.35.0")
    output = subprocess.run((*command, *values), capture_output=True, text=True, check=True).stdout
    # Helm is not there any more when it is applied.
    objects = re.sub(
        r"^ *(helm\.sh/chart|app\.kubernetes\.io/managed-by): .*\n", "", output, flags=re.MULTILINE
    )
    return _HEADER + objects


if __name__ == "__main__":
    MANIFEST.write_text(rendered(Path(sys.argv[1])))

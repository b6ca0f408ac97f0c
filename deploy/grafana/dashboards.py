"""Write Grafana's dashboards into the chart, as JSON: `make dashboards`."""

from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana.gateway import gateway
from deploy.grafana.gpu import gpu
from deploy.grafana.triton import triton

FOLDER = Path(__file__).parents[1] / "helm" / "visiongate" / "files" / "dashboards"
BOARDS = {"gateway": gateway, "triton": triton, "gpu": gpu}


def rendered() -> dict[str, str]:
    """Return what the files have in them, by their names without .json."""
    encoder = JSONEncoder(sort_keys=True, indent=1)
    return {name: encoder.encode(make().dashboard().build()) + "\n" for name, make in BOARDS.items()}


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in rendered().items():
        (FOLDER / f"{name}.json").write_text(text)

"""`visiongate moderate` as its users run it, on drawn scenes and the demo models."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from e2e.folder_commands import run_command
from export.demo import scenes
from export.demo.serving import REPOSITORY
from gateway.embedded import EmbeddedTriton
from inference_counts import InferenceCounts
from visiongate import AsyncClient
from visiongate.folders.policy import DISCLAIMER

POLICY = """
template = "a picture of a {}."
neutral = ["blue square", "green triangle"]
[[category]]
name = "circles"
prompts = ["red circle", "blue circle"]
review = 0.4
[[detect]]
name = "stars"
phrases = ["yellow star"]
block = 0.5
"""
DRAWN = {
    "circle.png": ("red", "circle"),
    "deep/star.png": ("yellow", "star"),
    "square.png": ("blue", "square"),
}


def draw(path: Path, colour: str, shape: str, seed: int = 0) -> None:
    painter = scenes.Painter(np.random.default_rng(scenes.FIRST_UNSEEN_SEED + seed), 320, 240)
    painter.shape(colour, shape, 0.5, (0.5, 0.5))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(painter.scene(degraded=False).image).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, (colour, shape) in DRAWN.items():
        draw(tmp_path / "photos" / name, colour, shape)
    (tmp_path / "photos/<b>broken.png").write_text("no image")
    (tmp_path / "policy.toml").write_text(POLICY)
    return tmp_path


async def test_a_folder_is_judged(
    demo_client: AsyncClient, demo_triton: EmbeddedTriton, folder: Path
) -> None:
    command = ["moderate", "photos", "--policy", "policy.toml"]
    page = folder / "look.html"
    done = await run_command(
        demo_client, *command, "--json", "--out", "judged.csv", "--html", str(page), cwd=folder
    )
    # One photo is not judged.
    assert done.code == 1, done.stderr
    judged = {entry["id"]: entry for entry in json.loads(done.stdout)}
    assert {name: entry["verdict"] for name, entry in judged.items()} == {
        "circle.png": "review",
        "deep/star.png": "block",
        "square.png": "fine",
        "<b>broken.png": "not judged",
    }
    assert judged["<b>broken.png"]["scores"] is None
    [ranking] = await demo_client.classify(
        [folder / "photos/circle.png"],
        ["red circle", "blue circle", "blue square", "green triangle"],
        prompt_template="a picture of a {}.",
    )
    circles = sum(score.probability for score in ranking if score.label.endswith("circle"))
    assert math.isclose(judged["circle.png"]["scores"]["circles"], circles, abs_tol=1e-5)
    assert done.stderr.count(DISCLAIMER) == 1
    assert "1 to block, 1 to review, 1 not judged, 1 fine." in done.stderr
    with (folder / "judged.csv").open(newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert {name: row["verdict"] for name, row in rows.items()} == {
        name: entry["verdict"] for name, entry in judged.items()
    }
    html = page.read_text()
    assert DISCLAIMER in html
    assert "<b>broken" not in html
    order = [html.index(name) for name in ("deep/star.png", "circle.png", "&lt;b&gt;broken", "square.png")]
    assert order == sorted(order)

    # Other thresholds, and a photo that can be read now: nothing is asked about the other photos.
    counts = InferenceCounts.at(demo_triton.grpc_address)
    model = next(path.name for path in REPOSITORY.iterdir() if "clip_image" in path.name)
    before = counts.settled(model).inferences
    (folder / "policy.toml").write_text(POLICY.replace("review = 0.4", "block = 0.4"))
    draw(folder / "photos/<b>broken.png", "blue", "square", seed=1)
    again = await run_command(demo_client, *command, cwd=folder)
    assert again.code == 0, again.stderr
    assert "2 to block, 0 to review, 0 not judged, 2 fine." in again.stderr
    assert "circle.png" in again.stdout
    assert "square.png" not in again.stdout
    assert counts.settled(model, before + 1).inferences == before + 1

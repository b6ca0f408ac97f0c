"""The recipes for Ray Data and Hugging Face datasets, as they stand, ask a gateway with the demo models.

`make ray` runs this. Both packages are in a Python environment of their own.
"""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from export.demo import show
from gateway.server import Gateway
from gateway.settings import Settings
from visiongate import AsyncClient

ROOT = Path(__file__).parents[2]
PYTHON = Path(sys.prefix).parent / "build" / "ray" / "bin" / "python"
PROGRAMS = {
    kind: program
    for program in re.findall(r"```python\n(.*?)```", (ROOT / "proto" / "RECIPES.md").read_text(), re.DOTALL)
    for kind in ("ray", "datasets")
    if f"\nimport {kind}\n" in f"\n{program}"
}
GOOD = 6
STATUSES = {f"{index}.png": "OK" for index in range(GOOD)} | {
    "broken.png": "INVALID_ARGUMENT",
    "cut.jpg": "INVALID_ARGUMENT",
}

Run = Callable[[str], Coroutine[Any, Any, None]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six scenes, and two files that are no images."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(GOOD):
        Image.fromarray(show.scene(index).image).save(photos / f"{index}.png")
    (photos / "broken.png").write_bytes(b"not an image")
    (photos / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    return tmp_path


@pytest.fixture
async def run(demo_settings: Settings, folder: Path) -> AsyncIterator[Run]:
    """Runs a recipe in the folder, with this test's server and the things that are in its pictures."""
    async with Gateway(demo_settings) as gateway:

        async def execute(kind: str) -> None:
            program = PROGRAMS[kind].replace("127.0.0.1:50051", f"127.0.0.1:{gateway.port}")
            process = await asyncio.create_subprocess_exec(
                *(PYTHON, "-c", program.replace('"truck", "wheel"', '"red circle", "blue square"')),
                cwd=folder,
                env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "HF_HOME": str(folder / "cache")},
            )
            assert await asyncio.wait_for(process.wait(), 240) == 0

        yield execute


async def test_ray_has_a_row_for_every_file_and_asks_about_none_twice(folder: Path, run: Run) -> None:
    await run("ray")
    answers = pq.read_table(folder / "answers").to_pylist()
    assert {Path(row["path"]).name: row["status"] for row in answers} == STATUSES
    for row in answers:
        phrases = row["detections"] and sorted(entry["phrase"] for entry in row["detections"])
        assert phrases == (["blue square", "red circle"] if row["status"] == "OK" else None)

    Image.new("RGB", (64, 64)).save(folder / "photos" / "new.png")
    await run("ray")
    answers = pq.read_table(folder / "answers").to_pylist()
    assert sorted(Path(row["path"]).name for row in answers) == sorted([*STATUSES, "new.png"])


async def test_hugging_face_has_a_row_for_every_file(
    folder: Path, run: Run, demo_client: AsyncClient
) -> None:
    await run("datasets")
    answers = pq.read_table(folder / "answers.parquet").to_pylist()
    assert {Path(row["image"]["path"]).name: row["status"] for row in answers} == STATUSES
    [wanted] = await demo_client.embed_images([folder / "photos" / "0.png"])
    [found] = [row["embedding"] for row in answers if Path(row["image"]["path"]).name == "0.png"]
    np.testing.assert_allclose(found, wanted, atol=1e-4)

"""Ray Data and Hugging Face datasets, as others install them, ask a gateway with the demo models: `make ray`.

They are in a Python environment of their own.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from export.demo import show
from gateway.server import Gateway
from gateway.settings import Settings
from visiongate import AsyncClient

PYTHON = Path(sys.prefix).parent / "build" / "ray" / "bin" / "python"
GOOD = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six scenes, and two files that are no images."""
    folder = tmp_path_factory.mktemp("ray")
    (folder / "images" / "good").mkdir(parents=True)
    for index in range(GOOD):
        picture = Image.fromarray(show.scene(index).image)
        picture.save(folder / "images" / "good" / f"{index}.png")
    (folder / "images" / "broken.png").write_bytes(b"not an image")
    (folder / "images" / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    return folder


@pytest.fixture(scope="module")
async def found(demo_settings: Settings, folder: Path) -> Any:
    async with Gateway(demo_settings) as gateway:
        process = await asyncio.create_subprocess_exec(
            *(PYTHON, Path(__file__).with_name("job.py"), f"127.0.0.1:{gateway.port}", folder),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "HF_HOME": str(folder / "cache")},
        )
        output, _ = await process.communicate()
    assert process.returncode == 0
    return json.loads(output.splitlines()[-1])


STATUSES = {f"{index}.png": "OK" for index in range(GOOD)} | {
    "broken.png": "INVALID_ARGUMENT",
    "cut.jpg": "INVALID_ARGUMENT",
}


async def test_ray_has_a_row_for_every_file_and_does_none_twice(found: Any, demo_client: AsyncClient) -> None:
    dimensions = (await demo_client.embed_images([])).shape[1]
    assert found["ray"]["status"] == STATUSES
    assert found["ray"]["rows"] == [len(STATUSES), len(STATUSES)]
    assert found["ray"]["type"] == f"fixed_size_list<element: float>[{dimensions}]"


async def test_ray_has_objects_in_pixels(found: Any) -> None:
    assert sorted(found["pixels"]) == [
        [f"{index}.png", ["blue square", "red circle"]] for index in range(GOOD)
    ]


async def test_hugging_face_has_the_same_rows(found: Any, demo_client: AsyncClient) -> None:
    dimensions = (await demo_client.embed_images([])).shape[1]
    assert found["hugging_face"]["status"] == STATUSES
    assert found["hugging_face"]["lengths"] == [dimensions]
    assert found["hugging_face"]["features"] == [
        "image",
        "status",
        "error_message",
        "width",
        "height",
        "embedding",
    ]

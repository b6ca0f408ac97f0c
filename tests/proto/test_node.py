"""The program for Node in proto/README.md, run as it stands there against a real gateway."""

import asyncio
import json
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.demo import scenes, show
from gateway.api_keys import ApiKey, write_keys
from gateway.models.boxes import iou
from gateway.server import Gateway
from gateway.settings import Settings

FOLDER = Path(__file__).parents[2] / "proto"
README = (FOLDER / "README.md").read_text()
PHRASES = ["red circle", "blue square"]
# What npm says where it cannot reach its registry.
OFFLINE = re.compile("ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ENETUNREACH|ETIMEDOUT")

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or shutil.which("npm") is None, reason="node and npm are not installed"
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The README's own steps, in a new folder."""
    folder = tmp_path_factory.mktemp("ask")
    shutil.copytree(FOLDER, folder / "proto", ignore=shutil.ignore_patterns("*.py", "*.pyi", "__pycache__"))
    [install] = re.findall(r"^    (npm install .*)$", README, re.MULTILINE)
    result = subprocess.run(
        [*install.split(), "--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if result.returncode and OFFLINE.search(result.stderr):
        pytest.skip("npm cannot reach its registry")
    assert result.returncode == 0, result.stderr
    [text] = re.findall(r"```js\n(.*?)```", README, re.DOTALL)
    (folder / "ask.mjs").write_text(text)
    return folder


@pytest.fixture(scope="module")
def scene(program: Path) -> scenes.Scene:
    drawn = show.scene(0)
    Image.fromarray(drawn.image).save(program / "scene.png")
    return drawn


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A file of API keys, and the one that is in it."""
    entry, text = ApiKey.generate("node")
    file = tmp_path_factory.mktemp("keys") / "keys.toml"
    write_keys(file, [entry])
    return file, text


@pytest.fixture(scope="module")
async def guarded(demo_settings: Settings, key: tuple[Path, str]) -> AsyncIterator[Gateway]:
    async with Gateway(demo_settings.model_copy(update={"api_keys": key[0]})) as gateway:
        yield gateway


async def ask(folder: Path, gateway: Gateway, key: str, *phrases: str) -> tuple[int | None, str, str]:
    """Exit code, output and errors of the program, asking about scene.png."""
    process = await asyncio.create_subprocess_exec(
        "node", "ask.mjs", "scene.png", *phrases,
        cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={
            "PATH": os.environ["PATH"],
            "VISIONGATE_SERVER": f"127.0.0.1:{gateway.port}",
            "VISIONGATE_API_KEY": key,
        },
    )  # fmt: skip
    try:
        output, errors = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
    return process.returncode, output.decode(), errors.decode()


async def test_its_answer_is_true(
    program: Path, scene: scenes.Scene, guarded: Gateway, key: tuple[Path, str]
) -> None:
    code, output, errors = await ask(program, guarded, key[1], *PHRASES)
    assert (code, errors) == (0, "")
    boxes = re.findall(r"^(\w+ \w+) (0\.\d\d) ([\d. ]+)$", output, re.MULTILINE)
    areas = dict(re.findall(r"^(\w+ \w+) (\d+) pixels$", output, re.MULTILINE))
    assert sorted(phrase for phrase, _, _ in boxes) == sorted(areas) == sorted(PHRASES)
    things = {thing.phrase: thing for thing in scene.things}
    for phrase, _, box in boxes:
        [[overlap]] = iou(np.array([box.split()], np.float32), things[phrase].box[None])
        assert overlap > 0.8
        assert int(areas[phrase]) == pytest.approx(things[phrase].mask.sum(), rel=0.2)


async def test_it_names_the_field_that_is_wrong(
    program: Path, scene: scenes.Scene, guarded: Gateway, key: tuple[Path, str]
) -> None:
    code, output, errors = await ask(program, guarded, key[1], "red circle", "")
    message, details = errors.splitlines()
    assert (code, output) == (1, "")
    assert message == "INVALID_ARGUMENT: query.phrases.values[1]: is empty"
    assert json.loads(details)["field"] == "query.phrases.values[1]"
    assert json.loads(details)["request_id"]


async def test_it_names_the_reason(program: Path, scene: scenes.Scene, guarded: Gateway) -> None:
    code, _, errors = await ask(program, guarded, "no such key", *PHRASES)
    message, details = errors.splitlines()
    assert code == 1
    assert message.startswith("UNAUTHENTICATED: ")
    assert json.loads(details)["reason"] == "KEY_UNKNOWN"

"""A sixth task, end to end, in a copy of the tree: new files and two edits are all that it takes.

`sixth_task/` has the new files, each at its place in the tree: it is the example of "Add a model" in
gateway/README.md.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from road.environments import ROOT, Environment, copy_checkout, serving, uv

NEW_FILES = ROOT / "tests" / "road" / "sixth_task"
# A line for each client, and what users import. Each edit: the line that it follows, and the new lines.
EDITS = {
    "proto/visiongate/client.py": [
        (
            "from visiongate.operations import detection,",
            "from visiongate.operations.brightness import measure_brightness",
        ),
        ("    list_models = _sync(", "    measure_brightness = _sync(measure_brightness)"),
        ("    list_models = _async(", "    measure_brightness = _async(measure_brightness)"),
    ],
    "proto/visiongate/__init__.py": [
        ("from visiongate.masks import Mask", "from visiongate.operations.brightness import Brightness"),
        ('    "AsyncClient",', '    "Brightness",'),
    ],
}
USE = """
import asyncio, sys
import visiongate

with visiongate.Client() as client:
    answer: visiongate.Brightness = client.measure_brightness(sys.argv[1])
    assert answer.info.model == "mean" and answer.info.image.width == 60
    tasks = {model.task: model.family for model in client.list_models()}

async def main() -> float:
    async with visiongate.AsyncClient() as client:
        return (await client.measure_brightness(sys.argv[1])).value

assert asyncio.run(main()) == answer.value
print(answer.value, tasks)
"""
MISUSE = """
import visiongate

value: str = visiongate.Client().measure_brightness("photo.png").value
visiongate.Client().measure_brightness()
"""
# The types of these libraries take half a minute to read, and have no say in this.
TYPES = """
[mypy]
strict = True
follow_imports = silent
[mypy-supervision.*,numpy.*,PIL.*,grpc.*,google.*]
follow_imports = skip
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout with a sixth task."""
    folder = copy_checkout(tmp_path_factory.mktemp("tree"))
    shutil.rmtree(folder / "tests")
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "-c", "user.name=-", "-c", "user.email=-", "commit", "--quiet", "--message", "before")
    shutil.copytree(NEW_FILES, folder, dirs_exist_ok=True)
    for name, edits in EDITS.items():
        lines = (folder / name).read_text().splitlines()
        for after, new in edits:
            [place] = [index for index, line in enumerate(lines) if line.startswith(after)]
            lines.insert(place + 1, new)
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def git(folder: Path, *arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def test_a_sixth_task(tree: Path, tmp_path: Path) -> None:
    """One test: each step stands on the one before."""
    changed = set(git(tree, "diff", "--name-only").split())
    new = set(git(tree, "ls-files", "--others", "--exclude-standard").split())
    assert changed == set(EDITS)
    assert new == {path.relative_to(NEW_FILES).as_posix() for path in NEW_FILES.rglob("*") if path.is_file()}

    # The build generates the stubs beside the .proto files.
    uv("build", "--quiet", "--wheel", "--out-dir", tmp_path, tree / "proto")
    environment = Environment(Path(sys.prefix), tmp_path, {"PYTHONPATH": f"{tree}:{tree / 'proto'}"})
    models = tmp_path / "models"
    environment.run("visiongate", "export", "brightness", "--weights", "random", "--repository", str(models))

    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    with serving(environment, ["up", "--repository", str(models)]) as ask:
        [row] = json.loads(ask(tmp_path, "brightness", "photo.png", "--json"))
        used = ask(tmp_path, "-c", USE, "photo.png", program="python")
    assert row["brightness"] == pytest.approx(pixels.mean() / 255, abs=0.01)
    assert used == f"{float(used.split()[0])} {{'brightness': 'brightness'}}\n"

    # Type checkers see the method, what it takes and what it returns.
    (tmp_path / "use.py").write_text(USE)
    (tmp_path / "misuse.py").write_text(MISUSE)
    (tmp_path / "mypy.ini").write_text(TYPES)
    check = ["-m", "mypy", "--cache-dir", str(tmp_path / "cache")]
    paths = {"MYPYPATH": str(tree / "proto")}
    errors = environment.run("python", *check, "use.py", "misuse.py", code=1, variables=paths).stdout
    assert errors.count("error:") == 2
    assert 'misuse.py:4: error: Incompatible types in assignment (expression has type "float"' in errors
    assert (
        "misuse.py:5: error: Missing positional argument" in errors or "misuse.py:5: error: Too few" in errors
    )

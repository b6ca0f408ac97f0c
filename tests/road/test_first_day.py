"""README's road: from a fresh clone to an answer about a photo, with a proxy in the way."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from road.environments import ROOT, Environment

README = (ROOT / "README.md").read_text()
# Nothing listens there: whatever goes to this machine by way of it fails.
PROXY = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "grpc_proxy"), "http://127.0.0.1:9")


def commands(heading: str) -> list[str]:
    """The commands of a section of README, in their order."""
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    return re.findall(r"^    (\S.*)$", section, re.MULTILINE)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone of the next commit would hold."""
    folder = tmp_path_factory.mktemp("clone")
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def test_the_road(clone: Path, tmp_path: Path) -> None:
    """One test: each step stands on the one before."""
    demo, up_demo, detect = commands("Install, and see it work")
    exporter, export, up, segment, *_ = commands("Your own photos")
    environment = Environment(clone / ".venv", tmp_path)

    make(demo, clone)
    assert (clone / "demo" / "demo.png").is_file()
    scene = clone / "demo" / "scene.png"
    assert scene.is_file()
    # Where nothing is exported yet, `up` says what to do.
    said = environment.run("visiongate", *words(up), code=1).stderr
    assert "visiongate export" in said
    assert "visiongate up --demo" in said
    said = environment.run("visiongate", *words(export), code=1).stderr
    assert "make exporter" in said

    found = answer(environment, words(up_demo), [*words(detect), "--json"], clone)
    assert [item["phrase"] for item in found] == ["red circle", "blue square", "green triangle"]

    make(exporter, clone)
    # Half of the default set, as no hub can be reached from here.
    family = words(export)[:3]
    assert family == ["export", "grounding_dino", "sam"]
    said = environment.run("visiongate", *family, "--weights", "demo", variables=PROXY).stdout
    assert "Next: visiongate up\n" in said
    found = answer(
        environment, words(up), ["segment", str(scene), "--phrase", "yellow star", "--json"], clone
    )
    assert [item["phrase"] for item in found] == ["yellow star"]
    assert found[0]["mask"]["area"] > 1000
    assert segment.startswith(".venv/bin/visiongate segment photo.jpg --phrase")


def make(command: str, clone: Path) -> None:
    done = subprocess.run(
        [*command.split(), f"PYTHON={sys.executable}"],
        cwd=clone,
        env=Environment(clone, clone).variables(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def words(command: str) -> list[str]:
    """The arguments of a command of README's."""
    program, *arguments = re.findall(r'"([^"]+)"|(\S+)', command)
    assert program[1] == ".venv/bin/visiongate"
    return [quoted or plain for quoted, plain in arguments]


def answer(environment: Environment, up: list[str], ask: list[str], clone: Path) -> list[dict[str, Any]]:
    """What a served repository says, sorted as README asks for it; the server must end in good order."""
    server = subprocess.Popen(
        [environment.program("visiongate"), *up, "--port", "0"],
        cwd=environment.directory,
        env=environment.variables(PROXY),
        stdout=subprocess.PIPE,
        text=True,
    )
    with server:
        assert server.stdout is not None
        line = server.stdout.readline()
        address = re.search(r"answers at (\S+)", line)
        assert address, line
        where = PROXY | {"VISIONGATE_SERVER": address[1]}
        in_clone = Environment(environment.path, clone)
        found: list[dict[str, Any]] = json.loads(in_clone.run("visiongate", *ask, variables=where).stdout)
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
    order = [word for word in ask if " " in word]
    return sorted(found, key=lambda item: order.index(str(item["phrase"])))

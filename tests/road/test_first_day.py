"""README's road: from a fresh clone to an answer about a photo, with a proxy in the way."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from skimage import data as skimage_data

from drawn_pages import SCANNED
from road.environments import PROXY, ROOT, Environment, copy_checkout, serving

README = (ROOT / "README.md").read_text()


def commands(heading: str) -> list[str]:
    """The commands of a section of README, in their order."""
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    return re.findall(r"^    (\S.*)$", section, re.MULTILINE)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone of the next commit would hold."""
    return copy_checkout(tmp_path_factory.mktemp("clone"))


def test_the_road(clone: Path, tmp_path: Path) -> None:
    """One test: each step stands on the one before."""
    demo, up_demo, detect = commands("Install, and see it work")
    serve_text, read_page = commands("Read a real page")
    exporter, export, up, *about_photos = commands("Your own photos")
    environment = Environment(clone / ".venv", tmp_path)

    make(demo, clone)
    assert (clone / "demo" / "demo.png").is_file()
    scene = clone / "demo" / "demo-scene.png"
    assert scene.is_file()
    # Where nothing is exported yet, `up` says what to do.
    said = environment.run("visiongate", *words(up), code=1).stderr
    assert "visiongate export" in said
    assert "visiongate up --demo" in said
    said = environment.run("visiongate", *words(export), code=1).stderr
    assert "make exporter" in said

    with serving(environment, words(up_demo)) as ask:
        found = json.loads(ask(clone, *words(detect), "--json"))
        assert sorted(item["phrase"] for item in found) == ["blue square", "green triangle", "red circle"]
        # README's own questions, of a photo of the reader's.
        Image.open(scene).convert("RGB").resize((1800, 1200)).save(tmp_path / "photo.jpg")
        assert len(about_photos) == 5
        for question in about_photos:
            ask(tmp_path, *words(question))
        assert (tmp_path / "out.png").is_file()

    ocr, export_text, up_text = serve_text.split(" && ")
    make(ocr, clone)
    said = environment.run("visiongate", *words(export_text), variables=PROXY).stdout
    assert "Apache License 2.0" in said
    environment.run("python", "-c", "import torch", code=1)
    Image.fromarray(skimage_data.page()).save(tmp_path / "page.png")
    with serving(environment, words(up_text)) as ask:
        assert ask(tmp_path, *words(read_page)).splitlines() == SCANNED

    make(exporter, clone)
    # One family of those, with weights that need no hub: the others are missing, and the server serves.
    family = words(export)[:2]
    assert family == ["export", "grounding_dino"]
    said = environment.run("visiongate", *family, "--weights", "demo", variables=PROXY).stdout
    assert "Missing for segmentation: sam; to add it: visiongate export sam --weights demo\n" in said
    assert "Next: visiongate up\n" in said
    with serving(environment, words(up)) as ask:
        [star] = json.loads(ask(tmp_path, "detect", str(scene), "yellow star", "--json"))
    assert star["phrase"] == "yellow star"


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

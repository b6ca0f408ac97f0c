"""The recipes run as they stand, on a folder of photos, and leave what they promise."""

import asyncio
import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from skimage import data as skimage_data

import visiongate
from gateway.server import Gateway

RECIPES = Path(__file__).parents[2] / "proto" / "RECIPES.md"
PROGRAMS = re.findall(
    r"\*\*([^*\n]+)\*\*[^\n]*\n(?:[^\n]+\n)*\n```python\n(.*?)```", RECIPES.read_text(), re.DOTALL
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("coffee", "astronaut", "chelsea", "rocket"):
        Image.fromarray(getattr(skimage_data, name)()).save(photos / f"{name}.jpg")
    Image.fromarray(skimage_data.coffee()[2:]).save(photos / "coffee again.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def run(program: str, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> str:
    class Client(visiongate.Client):
        """The one of the program, sent to the server of this test."""

        def __init__(self, address: str = "", **keywords: Any) -> None:
            super().__init__(f"127.0.0.1:{gateway.port}", **keywords)

    monkeypatch.setattr(visiongate, "Client", Client)
    printed = io.StringIO()

    def execute() -> None:
        with contextlib.redirect_stdout(printed):
            exec(compile(program, "RECIPES.md", "exec"), {})

    # In a thread: the gateway answers from this one.
    await asyncio.to_thread(execute)
    return printed.getvalue()


def program(title: str) -> str:
    texts: list[str] = [text for name, text in PROGRAMS if name.startswith(title)]
    return texts[0]


def test_all_programs_are_found() -> None:
    assert len(PROGRAMS) == 5


async def test_classification(gateway: Gateway, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (await run(program("Sort"), gateway, monkeypatch)).splitlines()
    assert len(lines) == 5
    assert all(re.fullmatch(r"photos/.+\.jpg (cat|dog|truck) \d+%", line) for line in lines)


async def test_moderation(gateway: Gateway, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (await run(program("Moderate"), gateway, monkeypatch)).splitlines()
    assert len(lines) == 5
    assert all(re.search(r" (held back|published) [01]\.\d\d$", line) for line in lines)


async def test_duplicates(gateway: Gateway, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = await run(program("Find near-duplicates"), gateway, monkeypatch)
    assert "photos/coffee again.jpg is nearly photos/coffee.jpg" in printed
    groups = re.findall(r"group: \[(.*)\]", printed)
    assert len(", ".join(groups).split(", ")) == 5
    assert [group for group in groups if "coffee.jpg" in group and "coffee again.jpg" in group]


async def test_search(gateway: Gateway, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (await run(program("Search"), gateway, monkeypatch)).splitlines()
    similarities = [float(line.split()[0]) for line in lines]
    assert len(lines) == 5
    assert similarities == sorted(similarities, reverse=True)


async def test_labels(gateway: Gateway, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await run(program("Label"), gateway, monkeypatch)
    with contextlib.redirect_stdout(io.StringIO()):
        labels = COCO("annotations.json")
    assert len(labels.imgs) == 5
    assert labels.anns
    for annotation in labels.anns.values():
        mask = labels.annToMask(annotation)
        image = labels.imgs[annotation["image_id"]]
        assert mask.shape == (image["height"], image["width"])
        assert mask.sum() == annotation["area"]
    assert {item["name"] for item in labels.cats.values()} == {"cup", "spoon"}
    assert score_against_itself(labels) == 1
    texts = [path.read_text() for path in (folder / "photos").glob("*.txt")]
    lines = [line.split() for text in texts for line in text.splitlines()]
    assert len(lines) == len(labels.anns)
    for index, *box in lines:
        assert index in {"0", "1"}
        assert all(0 <= float(value) <= 1 for value in box)


def score_against_itself(labels: COCO) -> float:
    """COCO's average precision of labels as their own predictions; its scorer takes the id 0 for none."""
    keys = ("image_id", "category_id", "bbox", "score")
    predictions = [{key: annotation[key] for key in keys} for annotation in labels.anns.values()]
    with contextlib.redirect_stdout(io.StringIO()):
        scoring = COCOeval(labels, labels.loadRes(predictions), "bbox")
        scoring.evaluate()
        scoring.accumulate()
        scoring.summarize()
    return float(scoring.stats[0])

"""`visiongate label` as its users run it, on drawn scenes and the demo models."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools.coco import COCO

from e2e.folder_commands import run_command
from export.demo import scenes
from visiongate import AsyncClient
from visiongate.folders.yolo import is_for_validation

SHAPES = (("red", "circle"), ("blue", "square"), ("green", "circle"))
"""Of every scene."""
NAMES = ("a/same.png", "b/same.png", "with 'space\".png", "plain.png", "new\nline.jpg")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a scene for each of NAMES."""
    folder = tmp_path_factory.mktemp("drawn")
    for index, name in enumerate(NAMES):
        painter = scenes.Painter(np.random.default_rng(scenes.FIRST_UNSEEN_SEED + index), 400, 300)
        for place, (colour, shape) in enumerate(SHAPES):
            assert painter.shape(colour, shape, 0.35, (0.2 + 0.3 * place, 0.5))
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(painter.scene(degraded=False).image).save(path, quality=95)
    return folder


def label_of(image: Path) -> Path:
    """Where trainers look for the label of an image."""
    head, _, tail = str(image).rpartition("/images/")
    return Path(f"{head}/labels/{tail.rpartition('.')[0]}.txt")


async def test_a_folder_becomes_a_data_set(demo_client: AsyncClient, drawn: Path, tmp_path: Path) -> None:
    colours = ("red", "blue", "green")
    phrases = [f"{colour} {shape}" for colour in colours for shape in ("circle", "square")]
    asked = [word for phrase in phrases[:4] for word in ("--phrase", phrase)]
    merged = f"green thing={phrases[4]},{phrases[5]}"
    options = [*asked, "--class", merged, "--format", "coco", "--format", "yolo", "--val", "0.4"]
    page = tmp_path / "look.html"
    done = await run_command(
        demo_client,
        "label",
        str(drawn),
        *options,
        "--out",
        "out",
        "--html",
        str(page),
        "--json",
        cwd=tmp_path,
    )
    assert done.code == 0, done.stderr
    names = [*phrases[:4], "green thing"]

    with contextlib.redirect_stdout(io.StringIO()):
        labels = COCO(tmp_path / "out/coco/annotations.json")
    assert [labels.cats[number]["name"] for number in sorted(labels.cats)] == names
    by_name = {image["file_name"]: image for image in labels.imgs.values()}
    assert by_name.keys() == set(NAMES)
    totals = dict.fromkeys(names, 0)
    for name, image in by_name.items():
        found = labels.loadAnns(labels.getAnnIds(image["id"]))
        alone = await demo_client.segment_phrases(drawn / name, phrases)
        # Boxes of two phrases that are one object now are one label.
        assert len(alone) - 1 <= len(found) <= len(alone)
        for annotation in found:
            totals[labels.cats[annotation["category_id"]]["name"]] += 1
            mask = labels.annToMask(annotation)
            assert mask.sum() == annotation["area"]
            assert any(
                item.mask is not None and np.array_equal(item.mask.pixels, mask.astype(bool))
                for item in alone
            )
    assert {row["class"]: row["objects"] for row in json.loads(done.stdout)} == totals
    for name in ("red circle", "blue square", "green thing"):
        assert totals[name] >= len(NAMES) - 1

    data = yaml.safe_load((tmp_path / "out/yolo/data.yaml").read_text())
    assert data["names"] == dict(enumerate(names))
    for part, names_of_part in (
        ("val", {name for name in NAMES if is_for_validation(name, 0.4)}),
        ("train", {name for name in NAMES if not is_for_validation(name, 0.4)}),
    ):
        images = [path for path in (Path(data["path"]) / data[part]).rglob("*") if path.is_file()]
        assert {path.resolve() for path in images} == {(drawn / name).resolve() for name in names_of_part}
        for path in images:
            lines = [line.split() for line in label_of(path).read_text().splitlines()]
            name = next(name for name in NAMES if (drawn / name).samefile(path))
            boxes = labels.loadAnns(labels.getAnnIds(by_name[name]["id"]))
            assert sorted(int(line[0]) + 1 for line in lines) == sorted(box["category_id"] for box in boxes)
            assert all(0 <= float(value) <= 1 for line in lines for value in line[1:])
    assert len([*(tmp_path / "out/previews").iterdir()]) == len(NAMES)
    assert page.read_text().count("data:image/jpeg") >= len(NAMES)


async def test_a_second_call_asks_about_what_is_new(
    demo_client: AsyncClient, drawn: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("plain.png", "a/same.png"):
        (photos / Path(name).name).write_bytes((drawn / name).read_bytes())
    (photos / "broken.png").write_text("no image")
    command = ["label", "photos", "--phrase", "red circle", "--boxes", "--out", "out", "--preview", "1"]
    first = await run_command(demo_client, *command, cwd=tmp_path)
    assert first.code == 1
    assert "error: broken.png: INVALID_ARGUMENT: " in first.stderr
    assert "annotations.json with 2 images" in first.stderr
    answers = tmp_path / "out/answers/part-000000.parquet"
    assert answers.is_file()

    (photos / "broken.png").unlink()
    (photos / "new.png").write_bytes((drawn / "b/same.png").read_bytes())
    again = await run_command(demo_client, *command, cwd=tmp_path)
    assert again.code == 0, again.stderr
    images = json.loads((tmp_path / "out/coco/annotations.json").read_text())["images"]
    assert {image["file_name"] for image in images} == {"plain.png", "same.png", "new.png"}
    summary = json.loads((tmp_path / "out/answers/_summary.json").read_text())
    assert (summary["rows"], summary["gone"]) == (1, 1)

    other = await run_command(demo_client, *command, "--phrase", "blue square", cwd=tmp_path)
    assert other.code == 1
    assert "give another --out, or --overwrite" in other.stderr
    options = ["--phrase", "blue square", "--overwrite", "--format", "yolo", "--val", "0"]
    anew = await run_command(demo_client, *command, *options, cwd=tmp_path)
    assert anew.code == 0, anew.stderr
    assert "yolo has data.yaml with 3 photos to train on, 0 to validate" in anew.stderr
    assert "data.yaml names the other for both" in anew.stderr
    # What another format has written stays, and is of before.
    assert (tmp_path / "out/coco/annotations.json").is_file()
    assert "out/coco is of an earlier call: --format coco renews it" in anew.stderr


async def test_words_that_find_nothing_are_told(
    demo_client: AsyncClient, drawn: Path, tmp_path: Path
) -> None:
    options = ["--phrase", "red circle", "--boxes", "--min-score", "1", "--preview", "0", "--out", "out"]
    done = await run_command(demo_client, "label", str(drawn), *options, cwd=tmp_path)
    assert done.code == 0
    assert "Nothing found. A lower --min-score finds more." in done.stderr

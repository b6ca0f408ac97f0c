"""`visiongate search`, `duplicates` and `cluster` over folders of drawings, through a real gateway."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from typer.testing import CliRunner, Result

from export.demo.unseen import unseen
from gateway.server import Gateway
from gateway.settings import Settings
from visiongate.cli import app

Ask = Callable[..., Awaitable[Result]]

COUNTS = {"red circle": 6, "blue square": 5, "yellow triangle": 4}
BROKEN = "broken.jpg"


@pytest.fixture(scope="module")
async def server(demo_settings: Settings) -> AsyncIterator[str]:
    async with Gateway(demo_settings) as gateway:
        yield f"127.0.0.1:{gateway.port}"


@pytest.fixture
def ask(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Runs a command, whose indices are in a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    async def run(*arguments: object, code: int = 0) -> Result:
        command = [*map(str, arguments), "--server", server]
        # In a thread: the server answers in this one.
        result = await asyncio.to_thread(CliRunner().invoke, app, command)
        assert result.exit_code == code, (result.output, result.exception)
        return result

    return run


def drawn(phrase: str, seed: int) -> Image.Image:
    """Draw one thing, somewhere."""
    random = np.random.default_rng(seed)
    colour, shape = phrase.split()
    fill = {"red": (220, 30, 30), "blue": (30, 60, 220), "yellow": (240, 220, 30)}[colour]
    image = Image.new("RGB", (160, 160), (245, 245, 240))
    canvas = ImageDraw.Draw(image)
    size = int(random.integers(70, 100))
    x, y = random.integers(10, 150 - size, 2).tolist()
    if shape == "circle":
        canvas.ellipse((x, y, x + size, y + size), fill)
    elif shape == "square":
        canvas.rectangle((x, y, x + size, y + size), fill)
    else:
        canvas.polygon([(x, y + size), (x + size, y + size), (x + size // 2, y)], fill)
    return image


@pytest.fixture
def drawings(tmp_path: Path) -> Path:
    """Drawings of a thing each, in folders by number, and a file that is no photo."""
    folder = tmp_path / "drawings"
    for number, (phrase, count) in enumerate(COUNTS.items()):
        (folder / str(number)).mkdir(parents=True)
        for seed in range(count):
            drawn(phrase, 100 * number + seed).save(folder / str(number) / f"{phrase} {seed}.png")
    (folder / "notes.txt").write_text("no photo")
    return folder


def names(number: int, phrase: str) -> set[str]:
    return {f"{number}/{phrase} {seed}.png" for seed in range(COUNTS[phrase])}


def asked(index: Path) -> int:
    """Return how many photos the last call has embedded."""
    rows = json.loads((index / "_summary.json").read_text())["rows"]
    assert isinstance(rows, int)
    return rows


async def found(ask: Ask, *arguments: object, code: int = 0) -> list[dict[str, Any]]:
    """Return what a command prints as JSON."""
    result = await ask(*arguments, "--json", code=code)
    entries = json.loads(result.stdout)
    assert isinstance(entries, list)
    return entries


async def test_words_find_what_they_say(ask: Ask, drawings: Path) -> None:
    for number, (phrase, count) in enumerate(COUNTS.items()):
        hits = await found(ask, "search", phrase, drawings, "--top", count)
        assert {hit["photo"] for hit in hits} == names(number, phrase)
        scores = [hit["similarity"] for hit in hits]
        assert scores == sorted(scores, reverse=True)


async def test_a_photo_finds_its_like(ask: Ask, drawings: Path, tmp_path: Path) -> None:
    drawn("blue square", 77).save(tmp_path / "asked.png")
    hits = await found(ask, "search", "--photo", tmp_path / "asked.png", drawings, "--top", 5)
    assert {hit["photo"] for hit in hits} == names(1, "blue square")
    hits = await found(ask, "search", "--photo", drawings / "0" / "red circle 3.png", drawings, "--top", 1)
    assert hits == [{"photo": "0/red circle 3.png", "similarity": pytest.approx(1, abs=1e-4)}]


async def test_the_least_score_holds(ask: Ask, drawings: Path) -> None:
    everything = await found(ask, "search", "red circle", drawings, "--top", 100)
    least = everything[4]["similarity"] - 1e-5
    some = await found(ask, "search", "red circle", drawings, "--top", 100, "--min-score", least)
    assert some == everything[:5]
    nothing = await ask("search", "red circle", drawings, "--min-score", 1)
    assert nothing.stdout == ""
    assert "A lower --min-score finds more." in nothing.stderr


async def test_the_index_follows_the_folder(ask: Ask, drawings: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"

    async def best(count: int) -> set[str]:
        hits = await found(ask, "search", "red circle", drawings, "--top", count, "--index", index)
        return {hit["photo"] for hit in hits}

    assert await best(6) == names(0, "red circle")
    assert asked(index) == sum(COUNTS.values())
    assert await best(6) == names(0, "red circle")
    assert asked(index) == 0
    # One is new, one has become another, one is gone.
    drawn("red circle", 50).save(drawings / "a new one.png")
    changed = drawings / "0" / "red circle 0.png"
    drawn("blue square", 51).save(changed)
    os.utime(changed, (0, 0))
    (drawings / "0" / "red circle 1.png").unlink()
    stayed = names(0, "red circle") - {"0/red circle 0.png", "0/red circle 1.png"}
    assert await best(5) == stayed | {"a new one.png"}
    assert asked(index) == 2
    everything = await found(ask, "search", "red circle", drawings, "--top", 100, "--index", index)
    assert len(everything) == sum(COUNTS.values())
    assert "0/red circle 1.png" not in {hit["photo"] for hit in everything}
    assert "0/red circle 0.png" in {hit["photo"] for hit in everything}


async def test_another_model_makes_the_index_anew(ask: Ask, drawings: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    before = await found(ask, "search", "red circle", drawings, "--index", index)
    manifest = json.loads((index / "_job.json").read_text())
    manifest["models"]["embedding"]["fingerprint"] = "of yesterday"
    (index / "_job.json").write_text(json.dumps(manifest))
    result = await ask("search", "red circle", drawings, "--index", index, "--json")
    assert "The index was made with the model demo, which has changed: it is made anew." in result.stderr
    assert json.loads(result.stdout) == before
    assert asked(index) == sum(COUNTS.values())


async def test_the_answer_does_not_depend_on_the_order_of_coming(
    ask: Ask, drawings: Path, tmp_path: Path
) -> None:
    late = [drawings / "0", drawings / "1" / "blue square 0.png"]
    for path in late:
        path.rename(tmp_path / path.name)
    await ask("search", "red circle", drawings)
    for path in late:
        (tmp_path / path.name).rename(path)
    for command in (
        ["search", "red circle", drawings, "--top", 100],
        ["cluster", drawings],
        ["duplicates", drawings, "--threshold", 0.9],
    ):
        grown = await found(ask, *command)
        assert grown == await found(ask, *command, "--index", tmp_path / "whole")


async def test_a_broken_photo_is_named_and_the_others_answer(ask: Ask, drawings: Path) -> None:
    (drawings / BROKEN).write_bytes(b"\xff\xd8\xff no photo")
    for command in (["search", "red circle"], ["duplicates"], ["cluster"]):
        result = await ask(*command, drawings, "--json", code=1)
        assert f"{BROKEN}: " in result.stderr
        assert BROKEN not in result.stdout
        assert json.loads(result.stdout) or command == ["duplicates"]
    # It is not asked about again until it changes.
    [index] = (drawings.parent / "cache" / "visiongate" / "index").iterdir()
    assert asked(index) == 0
    drawn("red circle", 9).save(drawings / BROKEN, "JPEG", quality=95)
    hits = await found(ask, "search", "red circle", drawings, "--top", 7)
    assert BROKEN in {hit["photo"] for hit in hits}


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    """Busy scenes; of the first a copy and a smaller version, of the second a recompressed one."""
    folder = tmp_path / "copies"
    (folder / "old").mkdir(parents=True)
    first, second, *others = [Image.fromarray(scene.image) for scene in unseen(8)]
    for number, image in enumerate(others):
        image.save(folder / f"other {number}.png")
    first.save(folder / "first.png")
    shutil.copy(folder / "first.png", folder / "old" / "copy of first.png")
    first.resize((first.width * 3 // 4, first.height * 3 // 4)).save(folder / "a small first.png")
    second.save(folder / "second.png")
    second.save(folder / "second.jpg", quality=85)
    return folder


async def test_duplicates(ask: Ask, copies: Path) -> None:
    first, second = await found(ask, "duplicates", copies)
    assert [(photo["photo"], photo["keep"], photo["exact"]) for photo in first["photos"]] == [
        ("first.png", True, True),
        ("old/copy of first.png", False, True),
        ("a small first.png", False, False),
    ]
    assert {photo["photo"] for photo in second["photos"]} == {"second.png", "second.jpg"}
    kept, copy, small = first["photos"]
    assert kept["sha256"] == copy["sha256"] != small["sha256"]
    assert kept["width"] > small["width"]
    assert 0.97 <= small["similarity"] < 1
    said = await ask("duplicates", copies)
    assert "2 groups among 11 photos: with one of each kept, 3 photos could go." in said.stderr
    assert "same file" in said.stdout
    assert sum(len(files) for _, _, files in os.walk(copies)) == 11


async def test_clusters_are_named_by_the_words_that_fit(ask: Ask, drawings: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (160, 160, 3), np.uint8)
    Image.fromarray(noise).save(drawings / "noise.png")
    words = [part for phrase in [*COUNTS, "green star"] for part in ("--words", phrase)]
    *groups, outliers = await found(ask, "cluster", drawings, *words, "--template", "{}")
    assert [(group["group"], group["name"]) for group in groups] == [
        (number, phrase) for number, phrase in enumerate(COUNTS, 1)
    ]
    for number, (group, phrase) in enumerate(zip(groups, COUNTS, strict=True)):
        assert {photo["photo"] for photo in group["photos"]} == names(number, phrase)
        scores = [photo["similarity"] for photo in group["photos"]]
        assert scores == sorted(scores, reverse=True)
    assert outliers == {"group": None, "name": "outliers", "photos": [{"photo": "noise.png"}]}


async def test_a_number_of_clusters_leaves_nobody_out(ask: Ask, drawings: Path) -> None:
    groups = await found(ask, "cluster", drawings, "--clusters", 3)
    assert [{photo["photo"] for photo in group["photos"]} for group in groups] == [
        names(number, phrase) for number, phrase in enumerate(COUNTS)
    ]
    table = (await ask("cluster", drawings, "--clusters", 3)).stdout
    assert "0/red circle" in table
    assert "…" in table


async def test_pages_show_the_answers(ask: Ask, drawings: Path, copies: Path, tmp_path: Path) -> None:
    page = tmp_path / "new" / "page.html"
    await ask("search", "red circle", drawings, "--top", 4, "--html", page)
    assert page.read_text().count("<img ") == 4
    await ask("search", "--photo", drawings / "0" / "red circle 3.png", drawings, "--top", 4, "--html", page)
    assert page.read_text().count("<img ") == 5
    await ask("duplicates", copies, "--html", page)
    assert page.read_text().count("<img ") == 5
    assert "with one of each kept, 3 photos could go" in page.read_text()
    await ask("cluster", drawings, "--html", page)
    assert page.read_text().count("<img ") == sum(COUNTS.values())


async def test_a_table_with_columns_of_other_names(ask: Ask, drawings: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    rows = [f"{phrase},drawings/{number}/{phrase} 0.png" for number, phrase in enumerate(COUNTS)]
    table.write_text("\n".join(["what,where", *rows]))
    columns = ("--column", "where", "--id-column", "what")
    [hit] = await found(ask, "search", "blue square", table, *columns, "--top", 1)
    assert hit["photo"] == "blue square"
    [outliers] = await found(ask, "cluster", table, *columns)
    assert [photo["photo"] for photo in outliers["photos"]] == sorted(COUNTS)


@pytest.mark.parametrize("count", [1, 2])
async def test_few_photos(ask: Ask, count: int, tmp_path: Path) -> None:
    folder = tmp_path / "few"
    folder.mkdir()
    for image, name in zip(unseen(count), "ab", strict=False):
        Image.fromarray(image.image).save(folder / f"{name}.png")
    assert len(await found(ask, "search", "red circle", folder)) == count
    assert await found(ask, "duplicates", folder) == []
    [outliers] = await found(ask, "cluster", folder)
    assert len(outliers["photos"]) == count
    assert (
        sum(len(group["photos"]) for group in await found(ask, "cluster", folder, "--clusters", 5)) == count
    )


async def test_no_photos(ask: Ask, tmp_path: Path) -> None:
    folder = tmp_path / "none"
    folder.mkdir()
    for command in (["search", "red circle"], ["duplicates"], ["cluster"]):
        result = await ask(*command, folder, code=1)
        assert "none has no inputs" in str(result.exception)
    (folder / "a.png").write_bytes(b"no image")
    for command in (["search", "red circle"], ["duplicates"], ["cluster"]):
        result = await ask(*command, folder, "--json", code=1)
        assert json.loads(result.stdout) == []
        assert "a.png: " in result.stderr


async def test_an_index_is_of_one_folder(ask: Ask, drawings: Path, copies: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    await ask("search", "red circle", drawings, "--index", index)
    refused = await ask("search", "red circle", copies, "--index", index, code=1)
    assert str(refused.exception) == (
        f"{index} is the index of {drawings}, not of {copies}: give another --index"
    )
    refused = await ask("search", "red circle", drawings, "--index", drawings, code=1)
    assert "is not empty, and holds no output of visiongate: give --index a new or empty folder" in str(
        refused.exception
    )
    assert (drawings / "notes.txt").read_text() == "no photo"

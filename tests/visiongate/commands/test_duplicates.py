"""How `visiongate duplicates` prints what it has found."""

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from visiongate.batch.inputs import open_source
from visiongate.cli import app
from visiongate.commands.folder import Photos
from visiongate.folders.index import Index


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the index of any folder one of three photos: two nearly the same, and one that is not."""
    angles = np.radians([0, 0.5, 90])
    found = Index(
        source=open_source([str(tmp_path)]),
        ids=["[/] small.png", "large.png", "other.png"],
        vectors=np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32),
        pixels=np.array([6, 24, 6]),
        sizes=[(3, 2), (6, 4), (3, 2)],
        hashes=["a", "b", "c"],
        failed=[(f"broken {number}.png", "not an image") for number in range(25)],
    )
    monkeypatch.setattr(Photos, "index", lambda *arguments: found)


def ask(tmp_path: Path, *options: object) -> Any:
    return CliRunner().invoke(app, ["duplicates", str(tmp_path), *map(str, options)])


def test_near_ones_never_look_equal(index: None, tmp_path: Path) -> None:
    result = ask(tmp_path)
    assert "0.999" in result.stdout
    assert "1.000" not in result.stdout
    assert "[/] small.png" in result.stdout
    assert "1 group among 3 photos: with one of each kept, 1 photo could go." in result.stderr


def test_json_says_which_to_keep(index: None, tmp_path: Path) -> None:
    [group] = json.loads(ask(tmp_path, "--json").stdout)
    assert group["photos"] == [
        {
            "photo": "large.png", "keep": True, "exact": True, "similarity": 1.0,
            "width": 6, "height": 4, "sha256": "b",
        },
        {
            "photo": "[/] small.png", "keep": False, "exact": False, "similarity": pytest.approx(0.999962),
            "width": 3, "height": 2, "sha256": "a",
        },
    ]  # fmt: skip


def test_no_duplicates(index: None, tmp_path: Path) -> None:
    result = ask(tmp_path, "--threshold", 1)
    assert result.stdout == ""
    assert "No duplicates among 3 photos. A lower --threshold finds more." in result.stderr


@pytest.mark.parametrize("command", ["duplicates", "cluster"])
def test_without_photos_that_can_be_used_no_option_finds_more(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = Index(
        source=open_source([str(tmp_path)]),
        ids=[],
        vectors=np.zeros((0, 1), np.float32),
        pixels=np.zeros(0, np.int64),
        sizes=[],
        hashes=[],
        failed=[("a.png", "not an image")],
    )
    monkeypatch.setattr(Photos, "index", lambda *arguments: nothing)
    result = CliRunner().invoke(app, [command, str(tmp_path)])
    assert result.exit_code == 1
    assert "There is no photo that can be used." in result.stderr
    assert "--threshold" not in result.stderr


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "--html {page} cannot be written: No space left on device",
        ),
        (OSError("another file is broken"), "another file is broken"),
    ],
)
def test_a_page_that_cannot_be_finished(
    error: OSError, said: str, index: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("visiongate.folders.page.write_page", fail)
    page = tmp_path / "page.html"
    assert str(ask(tmp_path, "--html", page).exception) == said.format(page=page)


def test_many_failures_are_counted(index: None, tmp_path: Path) -> None:
    result = ask(tmp_path)
    assert result.exit_code == 1
    assert "error: broken 19.png: not an image\n" in result.stderr
    assert "broken 20.png" not in result.stderr
    assert "5 more photos could not be used, either" in result.stderr

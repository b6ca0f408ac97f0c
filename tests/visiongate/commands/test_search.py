"""What `visiongate search` refuses before it asks a server."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from visiongate.cli import app

NOWHERE = ["--server", "127.0.0.1:1", "--timeout", "1"]


def refusal(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["search", *map(str, arguments), *NOWHERE])
    assert result.exit_code == 1
    return str(result.exception)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"some bytes")
    return path


def test_words_without_quotes(tmp_path: Path) -> None:
    assert refusal("a", "red", "car", tmp_path) == (
        'put the words in quotes: "a red car"; the last argument is the folder'
    )


def test_no_words(tmp_path: Path) -> None:
    assert refusal(tmp_path).startswith("give what to search for and where")


def test_words_and_a_photo(tmp_path: Path, photo: Path) -> None:
    assert refusal("red", tmp_path, "--photo", photo) == "give words or --photo, not both"


def test_photos_that_a_shell_has_named(tmp_path: Path, photo: Path) -> None:
    refused = refusal("red", photo, photo)
    assert refused.startswith(f"{photo} is a file here, and is read as a word: ")
    assert "--photo" in refused
    assert "'photos/*.jpg'" in refused


def test_the_folder_before_the_words(tmp_path: Path) -> None:
    assert refusal(tmp_path, "a red car") == (
        f"{tmp_path} is a folder, and comes last: first say what its photos show"
    )


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert refusal("red", tmp_path / "none") == f"there is no file or folder {tmp_path / 'none'}"


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    assert refusal("red", tmp_path, "--html", tmp_path).startswith(f"--html {tmp_path} cannot be written: ")


def test_an_index_that_is_damaged(tmp_path: Path, photo: Path) -> None:
    index = tmp_path / "index"
    index.mkdir()
    (index / "_job.json").write_text("{")
    assert refusal("red", tmp_path, "--index", index) == (
        f"{index}/_job.json is damaged: give another --index, or remove {index} to begin anew"
    )


def test_no_server(tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left behind."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert "nothing answers at 127.0.0.1:1" in refusal("red", tmp_path)
    assert not list((tmp_path / "cache" / "visiongate" / "index").iterdir())


@pytest.mark.parametrize("command", ["search red", "duplicates", "cluster"])
def test_a_cache_that_cannot_be_made(
    command: str, tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    cache.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    result = CliRunner().invoke(app, [*command.split(), str(tmp_path), *NOWHERE])
    assert str(result.exception) == (
        f"{cache}/visiongate/index cannot be made: Not a directory; give --index a folder that can be written"
    )

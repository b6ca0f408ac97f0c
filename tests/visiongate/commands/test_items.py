"""Photos and texts that cannot be used do not keep the answers about the others from being printed."""

import json
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from typer.testing import CliRunner

from visiongate import Answer, AnswerInfo, ArrayAnswer, InvalidArgumentError, Page
from visiongate.cli import app
from visiongate.commands import options

BAD = InvalidArgumentError(grpc.StatusCode.INVALID_ARGUMENT, "images[1].encoded: is no image")
SAYS = "INVALID_ARGUMENT: images[1].encoded: is no image"
INFO = AnswerInfo(errors={1: BAD})
VECTORS = ArrayAnswer(np.array([[1, 2], [np.nan, np.nan], [3, 4]], np.float32), INFO)
PAGES = Answer([Page([], "first", 1, 1), Page([], "", 0, 0), Page([], "third", 1, 1)], INFO)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    names = ["a.png", "[/] b.png", "c.png"]
    for name in names:
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(b"file")
    return names


def answering(monkeypatch: pytest.MonkeyPatch, name: str, answer: Any) -> list[dict[str, Any]]:
    """Let the client answer so; the keywords of its calls."""
    keywords: list[dict[str, Any]] = []

    def call(*_: Any, **values: Any) -> Any:
        keywords.append(values)
        return answer

    monkeypatch.setattr(options.PatientClient, name, call)
    return keywords


@pytest.mark.parametrize(
    ("method", "answer", "command", "kind"),
    [
        ("embed_images", VECTORS, ["embed", "PHOTOS"], "photo"),
        ("embed_texts", VECTORS, ["embed", "--text", "a.png ", "--text", "[/] b", "--text", "c"], "text"),
        ("compare", VECTORS[:, 0], ["compare", "PHOTO", "a", "[/] b", "c"], "text"),
        ("recognize_text", PAGES, ["ocr", "PHOTOS"], "photo"),
    ],
)
def test_an_error_is_a_line_and_the_others_are_printed(
    method: str,
    answer: Any,
    command: list[str],
    kind: str,
    photos: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keywords = answering(monkeypatch, method, answer)
    words = [name for word in command for name in {"PHOTOS": photos, "PHOTO": photos[:1]}.get(word, [word])]
    second = photos[1] if kind == "photo" else "[/] b"
    for as_json in (False, True):
        result = CliRunner().invoke(app, [*words, *(["--json"] if as_json else [])])
        assert result.exit_code == 1
        assert result.stderr.splitlines()[-1] == f"error: {second}: {SAYS}"
        assert result.stderr.count("error:") == 1
    entries = json.loads(result.stdout)
    assert len(entries) == 3
    assert entries[1] == {kind: second, "error": SAYS}
    assert "error" not in entries[0] | entries[2]
    assert all(call["strict"] is False for call in keywords)


def test_the_table_has_no_row_of_an_error(photos: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, "embed_images", VECTORS)
    result = CliRunner().invoke(app, ["embed", *photos, "--out", "out.npy"])
    assert "a.png" in result.stdout
    assert photos[1] not in result.stdout
    assert "nan" not in result.stdout
    assert np.isnan(np.load("out.npy")).tolist() == [[False] * 2, [True] * 2, [False] * 2]


def test_without_errors_all_is_well(photos: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, "recognize_text", Answer(PAGES, AnswerInfo()))
    assert CliRunner().invoke(app, ["ocr", *photos]).exit_code == 0


def test_a_page_that_cannot_be_read_is_not_drawn(photos: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, "recognize_text", Answer([PAGES[1]], AnswerInfo(errors={0: BAD})))
    result = CliRunner().invoke(app, ["ocr", photos[0], "--save", "out.png"])
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"error: {photos[0]}: {SAYS}\n")
    assert not Path("out.png").exists()

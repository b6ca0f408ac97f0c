"""What commands print is what they were given, and no other module prints."""

import ast
import io
import json
import math
from pathlib import Path

import pytest

import visiongate
from visiongate.commands import common
from visiongate.commands.common import fail, note, print_json, report, say, table, waiting

MARKUP = ["[/] sign", "[sic] cat", ":smile: a:b", "[link=x]y[/link]", "[bold red]", "\\[a]", "1 'two' /three"]
PACKAGE = Path(visiongate.__file__).parent


@pytest.mark.parametrize("text", MARKUP)
def test_texts_are_no_markup(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(text)
    note(text)
    fail(text)
    table(["name"], [[text]])
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == text
    assert err.splitlines() == [text, f"error: {text}"]
    assert f"│ {text}" in out


def test_long_texts_are_neither_cut_nor_folded_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    text = "a b" * 300
    say(text)
    table(["name", "score"], [[text, "1"]])
    out = capsys.readouterr().out.splitlines()
    assert out[0] == text
    assert len(out) == 6
    assert f"│ {text} │ 1     │" in out


def test_a_terminal_folds_tables(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(common.console, "_force_terminal", True)
    monkeypatch.setattr(common.console, "width", 40)
    table(["name", "score"], [["x" * 100, "1"]])
    out = capsys.readouterr().out
    assert out.count("x") == 100
    assert max(map(len, out.splitlines())) <= 40


def test_characters_that_would_command_a_terminal_are_spelt_out(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b[2Jb\rc\udcff\x9bd\te\nf ünï 👩‍👩‍👧")
    assert capsys.readouterr().out == "a\\x1b[2Jb\\rc\\udcff\\x9bd e\nf ünï 👩‍👩‍👧\n"


def test_a_row_of_a_table_is_one_line_whatever_a_file_is_called(capsys: pytest.CaptureFixture[str]) -> None:
    table(["name", "score"], [["a\nb\t\x1b.png", "1"]])
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 5
    assert "│ a\\nb\\t\\x1b.png │ 1     │" in out


def test_json_is_one_line_of_any_encoding(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = [{"text": "né 猫 [/]\n", "score": 0.5}]
    print_json(entries)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert "猫" in out
    assert json.loads(out) == entries
    for encoding, shown in (("ascii", b"n\\u00e9"), ("latin-1", b"n\\u00e9"), ("utf-8", "né".encode())):
        file = io.BytesIO()
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(file, encoding=encoding, write_through=True))
        print_json(entries)
        assert shown in file.getvalue()
        assert json.loads(file.getvalue()) == entries


def test_file_names_that_are_no_utf_8_are_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    print_json([{"photo": "a\udcff.png"}])
    assert json.loads(capsys.readouterr().out) == [{"photo": "a\udcff.png"}]


def test_json_into_a_closed_output_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    print_json([{"a": 1}])


def test_json_has_no_numbers_that_json_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    print_json([{"a": math.nan, "b": [math.inf, 1.5], "c": {"d": (-math.inf, 2)}}])
    assert json.loads(capsys.readouterr().out) == [{"a": None, "b": [None, 1.5], "c": {"d": [None, 2]}}]


def test_nothing_is_said_beside_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    report([], ["name"], [], as_json=False, nothing="Nothing found.")
    assert capsys.readouterr() == ("", "Nothing found.\n")
    report([], ["name"], [], as_json=True, nothing="Nothing found.")
    assert capsys.readouterr() == ("[]\n", "")


def test_waiting_shows_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with waiting("for [/] it"):
        pass
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(common.errors, "_force_terminal", True)
    monkeypatch.setattr(common.errors, "is_interactive", True)
    with waiting("for [/] it"):
        pass
    out, err = capsys.readouterr()
    assert out == ""
    assert "for [/] it" in err


def test_only_one_module_prints() -> None:
    """Elsewhere a text could be printed as markup."""
    packages = [PACKAGE, *(Path(__file__).parents[3] / name for name in ("gateway", "export"))]
    others = [path for package in packages for path in package.rglob("*.py") if path != Path(common.__file__)]
    assert len(others) > 100
    for path in others:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom | ast.Import):
                modules = {getattr(node, "module", None) or "", *(alias.name for alias in node.names)}
                rich = {name for name in modules if name.split(".")[0] == "rich"}
                assert rich <= {"rich.text", "rich.progress"}, path
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                # Between processes, and what a log's lines are: no console reads markup there.
                to_stream = called == "print" and any(word.arg in {"file", "flush"} for word in node.keywords)
                is_print = called in {"print", "typer.echo", "typer.secho"} or called.endswith(".print")
                assert to_stream or not is_print, f"{path}:{node.lineno}"

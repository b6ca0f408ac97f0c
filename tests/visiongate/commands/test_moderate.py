import errno
from pathlib import Path

import pytest
from typer.testing import CliRunner

from visiongate.batch.inputs import open_source
from visiongate.batch.tasks import make_task
from visiongate.cli import app
from visiongate.command_error import CommandError
from visiongate.commands.answers import renew_answers
from visiongate.commands.folder import Photos
from visiongate.commands.moderate import _Report
from visiongate.folders.policy import BLOCK, FINE, REVIEW, Judgement, example


def refusal(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["moderate", *arguments])
    assert result.exit_code == 1
    assert result.exception is not None
    return str(result.exception)


def test_the_example_is_printed_as_it_is() -> None:
    result = CliRunner().invoke(app, ["moderate", "--example"])
    assert result.exit_code == 0
    assert result.stdout == example()


def test_refusals_come_before_any_server(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(example())
    assert "give --policy FILE" in refusal("photos")
    assert "give a folder of photos" in refusal("--policy", str(policy))
    assert "none.toml cannot be read" in refusal("photos", "--policy", str(tmp_path / "none.toml"))
    assert "let its name end in .csv" in refusal(
        str(tmp_path), "--policy", str(policy), "--out", str(tmp_path / "out.xls")
    )
    assert "there is no file or folder" in refusal(str(tmp_path / "none"), "--policy", str(policy))


def test_a_cache_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(b"some bytes")
    (tmp_path / "cache").touch()
    (tmp_path / "policy.toml").write_text(example())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    refused = refusal(str(tmp_path), "--policy", str(tmp_path / "policy.toml"))
    assert "cannot be made: Not a directory; give --answers a folder" in refused


def test_a_full_disk_is_told_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(b"some bytes")
    (tmp_path / "policy.toml").write_text(example())
    monkeypatch.setattr("visiongate.commands.moderate._judged", lambda *arguments: iter(()))

    class Full:
        def __init__(self, file: object, names: object) -> None: ...

        def writeheader(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("csv.DictWriter", Full)
    out = tmp_path / "out.csv"
    refused = refusal(str(tmp_path), "--policy", str(tmp_path / "policy.toml"), "--out", str(out))
    assert refused == f"--out {out} cannot be written: No space left on device"
    assert not out.exists()


def test_the_worst_are_kept_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    report = _Report(2, keep_all=False)
    for name, verdict, risk in (
        ("a", REVIEW, 1.0),
        ("b", BLOCK, 1.5),
        ("c", REVIEW, 3.0),
        ("d", FINE, 0.1),
        ("e", REVIEW, 2.0),
        ("f", REVIEW, 2.0),
    ):
        report.add(name, Judgement(verdict, "guns", risk, {"guns": risk / 4}))
    assert [name for name, _ in report.worst(REVIEW)] == ["c", "e"]
    report.show(as_json=False)
    printed = capsys.readouterr()
    rows = [line.split("│")[1].strip() for line in printed.out.splitlines() if line.startswith("│")]
    assert rows == ["b", "c", "e"]
    assert "1 to block, 4 to review, 0 not judged, 1 fine." in printed.err


def test_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left behind but a folder that others cannot look into."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "a.jpg").write_bytes(b"some bytes")
    policy = tmp_path / "policy.toml"
    policy.write_text(example())
    nowhere = ["--server", "127.0.0.1:1", "--timeout", "1"]
    assert "nothing answers at 127.0.0.1:1" in refusal(str(tmp_path), "--policy", str(policy), *nowhere)
    answers = tmp_path / "cache/visiongate/answers"
    assert list(answers.iterdir()) == []
    assert answers.stat().st_mode & 0o777 == 0o700


def test_a_folder_of_answers_is_told_in_words_of_the_command(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "_job.json").write_text("{")
    work = Photos({}, {"address": "127.0.0.1:1", "timeout": 1}).work()
    task, source = make_task("embed"), open_source([str(tmp_path)])
    with pytest.raises(CommandError, match="is damaged") as raised:
        renew_answers(work, task, source, str(kept))
    assert str(raised.value) == (
        f"{kept}/_job.json is damaged: give another --answers, or remove {kept} to begin anew"
    )

import errno
from pathlib import Path

import pytest
from typer.testing import CliRunner

from visiongate.cli import app
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

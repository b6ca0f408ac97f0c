from pathlib import Path

import pytest
from typer.testing import CliRunner

from visiongate.cli import app

CUP = ["--phrase", "cup"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give what to label: --phrase cup"),
        (["--class", "cup"], "--class 'cup': write name=phrase,phrase"),
        ([*CUP, "--format", "voc"], "--format is 'voc': it must be coco or yolo"),
        ([*CUP, "--format", "yolo", "--masks"], "--masks is for COCO"),
        ([*CUP, "--boxes", "--model", "demo"], "--model makes masks, and there are only boxes"),
        ([*CUP, "--min-score", "2"], "min_score is 2.0: it must be 0 to 1"),
        ([*CUP, "--format", "yolo", "--out", "s3://bucket/out"], "--format yolo links to photos"),
        ([*CUP, "--out", "."], "is not empty, and holds no labels: give --out a new or empty folder"),
    ],
)
def test_refusals_come_before_any_server(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    out = [] if "--out" in arguments else ["--out", "out"]
    result = CliRunner().invoke(app, ["label", "photos", *out, *arguments])
    assert result.exit_code == 1
    assert says in str(result.exception)
    assert {path.name for path in tmp_path.iterdir()} == {"photos"}

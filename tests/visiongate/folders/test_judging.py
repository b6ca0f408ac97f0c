import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from visiongate.command_error import CommandError
from visiongate.folders.judging import check_ending, judged, write_judgements
from visiongate.folders.policy import BLOCK, DISCLAIMER, FINE, NOT_JUDGED, REVIEW, Judgement, parse_policy

POLICY = parse_policy(
    """
neutral = ["food"]
[[category]]
name = "guns"
prompts = ["a gun"]
review = 0.5
[[detect]]
name = "pistols"
phrases = ["pistol"]
block = 0.5
""",
    "policy.toml",
)
JUDGEMENTS = [
    ("a,\n\"b'.jpg", Judgement(BLOCK, "guns", 2.0, {"guns": 0.5, "blood": 0.25})),
    ("c.jpg", Judgement(NOT_JUDGED, error="INVALID_ARGUMENT: is broken")),
]


def batch(column: str, rows: list[tuple[str, str, list[dict[str, Any]]]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(
        [
            {"id": name, "status": status, "error_message": "" if status == "OK" else "is broken"}
            | {column: found if status == "OK" else None}
            for name, status, found in rows
        ]
    )


def gun(probability: float) -> list[dict[str, Any]]:
    return [{"label": "a gun", "probability": probability}, {"label": "food", "probability": 1 - probability}]


def pistol(score: float) -> list[dict[str, Any]]:
    return [{"phrase": "pistol", "score": score}, {"phrase": "pistol", "score": 0.1}]


def test_both_models_judge_a_photo() -> None:
    classified = [
        batch("labels", [("a", "OK", gun(0.1)), ("b", "OK", gun(0.6)), ("twice", "OK", gun(0))]),
        batch("labels", [("c", "INVALID_ARGUMENT", []), ("d", "OK", gun(0)), ("twice", "OK", gun(0))]),
        batch("labels", [("only here", "OK", gun(0))]),
    ]
    # In another order, as after inputs were added between two runs.
    detected = [
        batch(
            "detections", [("twice", "OK", []), ("d", "UNAVAILABLE", []), ("c", "OK", []), ("b", "OK", [])]
        ),
        batch("detections", [("twice", "OK", pistol(0.9)), ("a", "OK", pistol(0.7))]),
    ]
    verdicts = [(name, each.verdict, each.error) for name, each in judged(POLICY, classified, detected)]
    assert verdicts == [
        ("a", BLOCK, ""),
        ("b", REVIEW, ""),
        ("twice", FINE, ""),
        ("c", NOT_JUDGED, "INVALID_ARGUMENT: is broken"),
        # What only one model has seen is not fine.
        ("d", NOT_JUDGED, "UNAVAILABLE: is broken"),
        ("twice", BLOCK, ""),
        ("only here", NOT_JUDGED, "there are no detections of it"),
    ]


def test_a_policy_of_one_model() -> None:
    prompts = parse_policy(
        'neutral = ["food"]\n[[category]]\nname = "guns"\nprompts = ["a gun"]\nblock = 0.5', "p"
    )
    assert [each.verdict for _, each in judged(prompts, [batch("labels", [("a", "OK", gun(0.5))])], [])] == [
        BLOCK
    ]
    phrases = parse_policy('[[detect]]\nname = "guns"\nphrases = ["pistol"]\nblock = 0.5', "p")
    rows = [("a", "OK", pistol(0.4)), ("b", "NOT_FOUND", []), ("c", "OK", [])]
    assert [each.verdict for _, each in judged(phrases, [], [batch("detections", rows)])] == [
        FINE,
        NOT_JUDGED,
        FINE,
    ]


def test_files_hold_every_judgement(tmp_path: Path) -> None:
    for ending in ("csv", "jsonl", "parquet"):
        path = tmp_path / f"out.{ending}"
        assert list(write_judgements(path, JUDGEMENTS, ["guns", "blood"])) == JUDGEMENTS
    assert {path.name for path in tmp_path.iterdir()} == {"out.csv", "out.jsonl", "out.parquet"}
    with (tmp_path / "out.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first == {
        "id": "a,\n\"b'.jpg",
        "verdict": "block",
        "category": "guns",
        "risk": "2.0",
        "score_guns": "0.5",
        "score_blood": "0.25",
        "error": "",
    }
    assert (second["verdict"], second["score_guns"], second["error"]) == (
        "not judged",
        "",
        "INVALID_ARGUMENT: is broken",
    )
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert lines == [judgement.as_dict(name) for name, judgement in JUDGEMENTS]
    assert lines[0]["scores"] == {"guns": 0.5, "blood": 0.25}
    assert lines[1]["scores"] is None
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["score_blood"].to_pylist() == [0.25, None]
    assert table.schema.metadata[b"note"].decode() == DISCLAIMER


def test_a_failure_leaves_the_last_file(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("before")

    def failing() -> Iterator[tuple[str, Judgement]]:
        yield JUDGEMENTS[0]
        raise CommandError("the server is gone")

    with pytest.raises(CommandError, match="gone"):
        list(write_judgements(path, failing(), ["guns", "blood"]))
    assert path.read_text() == "before"
    assert [*tmp_path.iterdir()] == [path]


def test_other_endings_are_refused() -> None:
    with pytest.raises(CommandError, match=r"--out a.txt: let its name end in .csv, .jsonl or .parquet"):
        check_ending(Path("a.txt"))
    check_ending(Path("A.CSV"))

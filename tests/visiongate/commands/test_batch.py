"""`visiongate batch`: its options, what it says, and how it ends. Jobs themselves are in tests/e2e."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from visiongate import cli
from visiongate.batch import job as jobs
from visiongate.batch.extra import needs
from visiongate.batch.job import FINISHED, STOPPED, TOO_MANY_FAILED, Job, Summary
from visiongate.batch.progress import SERVER, Progress
from visiongate.command_error import CommandError
from visiongate.commands.job_report import duration, sentence_of
from visiongate.commands.jobs import read_shard
from visiongate.commands.stopping import Stop, stop_in_order

DONE = Summary(end=FINISHED, rows=3, ok=2, failed={"NOT_FOUND": 1}, skipped=4, skipped_failed=2, seconds=1.5)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Job]:
    """The jobs that commands begin. None of them is done: each ends as `DONE`."""
    every: list[Job] = []

    def run(job: Job) -> Summary:
        every.append(job)
        return DONE

    monkeypatch.setattr(jobs, "run", run)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JOB_COMPLETION_INDEX", raising=False)
    (tmp_path / "photos").mkdir()
    return every


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["visiongate", "batch", *arguments])
    monkeypatch.setattr(cli, "handle_stop_signals", lambda _: {})
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("arguments", "name", "settings"),
    [
        (["embed", "--no-normalize", "--model", "b"], "embed", {"normalize": False, "model": "b"}),
        (["embed", "--dtype", "float16"], "embed", {"dtype": "float16"}),
        (
            ["classify", "--label", "cat", "--label", "dog", "--top-k", "1", "--template", "a {}"],
            "classify",
            {"labels": ["cat", "dog"], "top_k": 1, "prompt_template": "a {}"},
        ),
        (
            ["detect", "--phrase", "cat", "--nms-iou", "0.4", "--max-detections", "9"],
            "detect",
            {"phrases": ["cat"], "nms_iou_threshold": 0.4, "max_detections": 9},
        ),
        (["detect", "--caption", "a cat"], "detect", {"caption": "a cat"}),
        (
            ["segment", "--phrase", "cat", "--nms-iou", "0.4", "--model", "b"],
            "segment",
            {"phrases": ["cat"], "nms_iou_threshold": 0.4, "segmentation_model": "b"},
        ),
        (
            ["segment", "--min-iou", "0.4", "--mask-nms-iou", "0.3", "--max-masks", "5"],
            "segment",
            {"min_predicted_iou": 0.4, "nms_iou_threshold": 0.3, "max_masks": 5},
        ),
        (
            ["ocr", "--reading-order", "columns", "--no-group-lines"],
            "ocr",
            {"reading_order": "columns", "group_lines": False},
        ),
        (
            ["gaze", "--nms-iou", "0.2", "--small-faces"],
            "gaze",
            {"nms_iou_threshold": 0.2, "small_faces": True},
        ),
    ],
)
def test_options_are_settings_of_the_task(
    monkeypatch: pytest.MonkeyPatch,
    asked: list[Job],
    arguments: list[str],
    name: str,
    settings: dict[str, Any],
) -> None:
    assert call(monkeypatch, *arguments, "photos", "--out", "out") == 0
    (job,) = asked
    assert job.task.name == name
    assert settings.items() <= dict(job.task.settings).items()


def test_options_of_the_job(monkeypatch: pytest.MonkeyPatch, asked: list[Job]) -> None:
    monkeypatch.setenv("VISIONGATE_SERVER", "one:1 two:2")
    options = "--rows-per-file 7 --batch-size 3 --window 2 --shard 1/4 --retry-failed --max-failure-rate 0.5"
    assert call(monkeypatch, "embed", "photos", "--out", "out", *options.split(), "--timeout", "9") == 0
    (job,) = asked
    assert [client.address for client in job.clients] == ["one:1", "two:2"]
    assert (job.rows_per_file, job.batch_size, job.window, job.shard) == (7, 3, 2, (1, 4))
    assert (job.retry_failed, job.overwrite, job.max_failure_rate, job.timeout_s) == (True, False, 0.5, 9)
    assert (job.out, job.source.name) == ("out", str(Path("photos").absolute()))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["detect", "photos"], "give what to look for: --phrase, any number of times, or --caption"),
        (["detect", "photos", "--phrase", "a", "--caption", "b"], "give what to look for"),
        (["classify", "photos"], "--label cat"),
        (["embed", "photos", "--dtype", "int8"], "dtype"),
        (["embed", "photos", "--format", "coco"], "the format coco is for objects"),
        (["embed", "photos", "--format", "xml"], "there is no format 'xml'"),
        (["embed", "photos", "--format", "npy", "--shard", "0/2"], "without --shard"),
        (["segment", "photos", "--min-score", "0.5"], "--min-score goes with --phrase or --caption"),
        (["segment", "photos", "--phrase", "a", "--min-iou", "0.5"], "--min-iou is for everything in sight"),
        (["embed", "nowhere"], "there is no file or folder nowhere"),
        (["embed", "photos", "--shard", "2/2"], "--shard is 2/2: i is from 0 to n - 1"),
        (["embed", "photos", "--shard", "half"], "--shard is 'half': give i/n"),
        (["embed", "photos", "--shard", "auto/2"], "JOB_COMPLETION_INDEX"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    asked: list[Job],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
) -> None:
    assert call(monkeypatch, *arguments, "--out", "out") == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert says in said
    assert asked == []


def test_options_of_other_tasks_are_refused(
    monkeypatch: pytest.MonkeyPatch, asked: list[Job], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "embed", "photos", "--phrase", "cat", "--out", "out") == 2
    assert "No such option: --phrase" in capsys.readouterr().err
    assert asked == []


def test_the_summary_is_a_table_or_json(
    monkeypatch: pytest.MonkeyPatch, asked: list[Job], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "embed", "photos", "--out", "out") == 0
    table, said = capsys.readouterr()
    assert "NOT_FOUND" in table
    assert said.splitlines() == [
        "3 new rows in out, in 1.5 s, 2 a second",
        "4 rows were there already, 2 of them failed (--retry-failed)",
    ]
    assert call(monkeypatch, "embed", "photos", "--out", "out", "--json") == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["out"], entry["ok"], entry["failed"]) == ("out", 2, {"NOT_FOUND": 1})


def test_too_many_failures_are_exit_code_3(
    monkeypatch: pytest.MonkeyPatch, asked: list[Job], capsys: pytest.CaptureFixture[str]
) -> None:
    failed = {"NOT_FOUND": 10, "INTERNAL": 20}
    summary = Summary(end=TOO_MANY_FAILED, rows=100, ok=70, failed=failed, first_failure="a.jpg: it is empty")
    monkeypatch.setattr(jobs, "run", lambda job: summary)
    assert call(monkeypatch, "embed", "photos", "--out", "out") == 3
    said = capsys.readouterr()
    assert "30 of 100 in this run" in said.err
    assert "a.jpg: it is empty" in said.err
    assert "INTERNAL" in said.out
    assert call(monkeypatch, "embed", "photos", "--out", "out", "--json") == 3
    assert json.loads(capsys.readouterr().out)[0]["failed"] == failed


def test_failures_of_earlier_runs_are_mended_by_retrying(
    monkeypatch: pytest.MonkeyPatch, asked: list[Job], capsys: pytest.CaptureFixture[str]
) -> None:
    summary = Summary(end=TOO_MANY_FAILED, rows=0, ok=0, skipped=100, skipped_failed=60)
    monkeypatch.setattr(jobs, "run", lambda job: summary)
    assert call(monkeypatch, "embed", "photos", "--out", "out") == 3
    said = capsys.readouterr().err
    assert "in earlier runs, 60 of 100" in said
    assert "--retry-failed" in said


def test_a_signal_is_exit_code_128_and_more(
    monkeypatch: pytest.MonkeyPatch, asked: list[Job], capsys: pytest.CaptureFixture[str]
) -> None:
    def run(job: Job) -> Summary:
        assert not job.is_stopped()
        os.kill(os.getpid(), signal.SIGTERM)
        assert job.is_stopped()
        return Summary(end=STOPPED, rows=5, ok=5)

    monkeypatch.setattr(jobs, "run", run)
    assert call(monkeypatch, "embed", "photos", "--out", "out") == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "stopped after 5 rows, which are kept: run the same again to go on\n"


def test_work_that_does_not_ask_is_ended_at_once_and_at_a_second_signal() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_in_order(), pytest.raises(SystemExit) as ended:
        os.kill(os.getpid(), signal.SIGTERM)
    assert ended.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before
    stop = Stop()
    assert not stop.is_requested()
    stop(signal.SIGINT, None)
    assert stop.is_requested()
    with pytest.raises(SystemExit) as ended:
        stop(signal.SIGTERM, None)
    assert (ended.value.code, stop.signal) == (128 + signal.SIGTERM, signal.SIGINT)


def test_the_pod_of_an_indexed_job_knows_its_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "3")
    assert read_shard("auto/8") == (3, 8)
    assert read_shard(" 0/1 ") == (0, 1)
    with pytest.raises(CommandError, match="--shard is 3/3"):
        read_shard("auto/3")


def test_a_package_that_is_missing_is_named_with_its_extra() -> None:
    says = r'no_such_package is missing: .* `pip install "\./proto\[batch\]"` in a clone'
    with pytest.raises(CommandError, match=says), needs("batch"):
        import no_such_package.inside  # type: ignore[import-not-found]  # noqa: F401
    with pytest.raises(ModuleNotFoundError), needs("batch"):
        import visiongate.no_such_module  # type: ignore[import-not-found]  # noqa: F401


def test_progress_as_people_read_it() -> None:
    progress = Progress(
        rows=1200,
        failed={"INTERNAL": 3},
        skipped=800,
        total=10_000,
        rate=12.3,
        left_s=650,
        limit="the server",
        lost=1,
    )
    assert sentence_of(progress) == (
        "2,000 of 10,000 rows, 12 a second, 10 min 50 s left, 3 failed, 1 server lost, limited by the server"
    )
    assert sentence_of(Progress()) == "0 rows"
    gone = Progress(rows=5, limit=SERVER, seconds=30)
    assert sentence_of(gone) == "5 rows, nothing lately: waiting for the server"
    assert [duration(each) for each in (0.04, 9.9, 59.6, 3599, 7500)] == [
        "0.0 s", "9.9 s", "60 s", "59 min 59 s", "2 h 5 min",
    ]  # fmt: skip


@pytest.mark.parametrize("is_json", [True, False])
def test_where_nobody_watches_progress_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, asked: list[Job], capsys: pytest.CaptureFixture[str], is_json: bool
) -> None:
    now = 0.0
    monkeypatch.setattr("visiongate.commands.common.time.monotonic", lambda: now)

    def run(job: Job) -> Summary:
        nonlocal now
        for rows in range(50):
            now += 0.5
            job.on_progress(Progress(rows=rows))
        return DONE

    monkeypatch.setattr(jobs, "run", run)
    call(monkeypatch, "embed", "photos", "--out", "out", *(["--json-log"] if is_json else []))
    lines = capsys.readouterr().err.splitlines()[:2]
    if is_json:
        assert [json.loads(line)["rows"] for line in lines] == [19, 39]
    else:
        assert lines == ["19 rows", "39 rows"]

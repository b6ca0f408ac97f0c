"""Jobs as a whole, with a server at the edge that is none: what stops them, and what they leave."""

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from fake_client import TASK, FakeClient, Items, error, item, lengths, numbered
from visiongate.batch.item import Item
from visiongate.batch.job import FINISHED, STOPPED, TOO_MANY_FAILED, Job, Summary, run
from visiongate.command_error import CommandError
from visiongate.errors import VisiongateError


def do(items: list[Item], out: Path, *clients: FakeClient, **more: Any) -> Summary:
    several: Any = clients or (FakeClient(),)
    more = {"rows_per_file": 10, "max_failure_rate": 1.0} | more
    return run(Job(task=TASK, source=Items(items), out=str(out), clients=several, **more))


def lengths_in(out: Path) -> list[int | None]:
    files = sorted(out.glob("part-*.parquet"))
    return [value for path in files for value in parquet.read_table(path)["length"].to_pylist()]


def test_a_summary_counts_what_was_done_and_what_was_there(tmp_path: Path) -> None:
    items = numbered(25)
    items[3] = item("003", b"bad")
    items[4] = item("004", FileNotFoundError("gone"))
    first = do(items, tmp_path / "out")
    assert (first.end, first.rows, first.ok, first.skipped) == (FINISHED, 25, 23, 0)
    assert first.failed == {"INVALID_ARGUMENT": 1, "NOT_FOUND": 1}
    again = do(items, tmp_path / "out")
    assert (again.end, again.rows, again.skipped, again.skipped_failed) == (FINISHED, 0, 25, 2)
    found = json.loads((tmp_path / "out" / "_summary.json").read_text())
    assert (found["end"], found["skipped"]) == (FINISHED, 25)
    assert len(lengths_in(tmp_path / "out")) == 25


def test_the_files_say_which_models_and_settings_they_are_from(tmp_path: Path) -> None:
    do(numbered(3), tmp_path / "out")
    metadata = parquet.read_schema(tmp_path / "out" / "part-000000.parquet").metadata
    about = json.loads(metadata[b"visiongate"])
    assert about["task"] == "measure"
    assert about["settings"] == {"unit": "byte"}
    assert about["models"] == {"embedding": {"variant": "small", "fingerprint": "abc"}}


def test_a_model_that_changes_under_the_job_stops_it_before_a_row_is_written(tmp_path: Path) -> None:
    client = FakeClient()

    def answer(files: list[bytes]) -> Any:
        if files and len(files[0]) > 20:
            client.fingerprint = "def"
        return lengths(files)

    client.answer = answer
    with pytest.raises(CommandError, match=r"the model for embedding of one:1 has changed.*abc.*def"):
        do(numbered(60), tmp_path / "out", client, batch_size=1, window=1)
    # The rows of the open file may be of either model.
    assert not list((tmp_path / "out").glob("_open-*"))
    before = len(lengths_in(tmp_path / "out"))
    assert before <= 20
    with pytest.raises(CommandError, match="embedding is variant small with fingerprint abc, and here"):
        do(numbered(60), tmp_path / "out", client)
    assert do(numbered(60), tmp_path / "out", client, overwrite=True).rows == 60


def test_servers_with_other_models_are_refused(tmp_path: Path) -> None:
    other = FakeClient(fingerprint="def", address="two:2")
    with pytest.raises(CommandError, match=r"small \(abc\) at one:1 and small \(def\) at two:2"):
        do(numbered(3), tmp_path / "out", FakeClient(), other)
    assert not (tmp_path / "out").exists()


def test_a_server_that_is_lost_is_named(tmp_path: Path) -> None:
    is_asked = threading.Event()

    def refuse(files: list[bytes]) -> Any:
        if not files:
            # The question before the first image.
            return lengths(files)
        is_asked.set()
        return error("UNAUTHENTICATED")

    def answer(files: list[bytes]) -> Any:
        assert not files or is_asked.wait(30)
        return lengths(files)

    seen: list[int] = []
    clients = FakeClient(answer), FakeClient(refuse, address="two:2")
    summary = do(
        numbered(40), tmp_path / "out", *clients, on_progress=lambda progress: seen.append(progress.lost)
    )
    assert (summary.end, summary.ok, summary.failed) == (FINISHED, 40, {})
    assert summary.lost == {"two:2": "UNAUTHENTICATED: no"}
    assert seen[-1] == 1


def test_of_several_servers_the_one_that_refuses_is_named(tmp_path: Path) -> None:
    def refuse(files: list[bytes]) -> Any:
        raise error("UNAUTHENTICATED")

    with pytest.raises(VisiongateError, match=r"^UNAUTHENTICATED: two:2: no"):
        do(numbered(4), tmp_path / "out", FakeClient(), FakeClient(refuse, address="two:2"))
    with pytest.raises(VisiongateError, match=r"^UNAUTHENTICATED: no"):
        do(numbered(4), tmp_path / "out", FakeClient(refuse))


def test_a_source_without_inputs_is_refused(tmp_path: Path) -> None:
    several: Any = [FakeClient()]
    source = Items([], "photos", ignored=7)
    with pytest.raises(CommandError, match=r"photos has no inputs \(7 files are no images"):
        run(Job(task=TASK, source=source, out=str(tmp_path / "out"), clients=several))
    assert not (tmp_path / "out").exists()


def test_what_was_done_before_an_error_stays(tmp_path: Path) -> None:
    def answer(files: list[bytes]) -> Any:
        return error("UNAVAILABLE") if files and len(files[0]) > 25 else lengths(files)

    with pytest.raises(VisiongateError, match="UNAVAILABLE"):
        do(numbered(40), tmp_path / "out", FakeClient(answer), batch_size=1, window=1)
    rest = do(numbered(40), tmp_path / "out")
    # 20 in files, five in the file that was open.
    assert (rest.skipped, rest.rows) == (20, 15)
    assert lengths_in(tmp_path / "out") == list(range(1, 41))


@pytest.mark.parametrize(("count", "end", "rows"), [(99, TOO_MANY_FAILED, 99), (300, TOO_MANY_FAILED, 100)])
def test_too_many_failures_are_noticed_early_or_at_the_end(
    tmp_path: Path, count: int, end: str, rows: int
) -> None:
    items = [item(str(number), b"bad" if number % 2 else b"good") for number in range(count)]
    found = do(items, tmp_path / "out", max_failure_rate=0.4)
    assert (found.end, found.rows) == (end, rows)
    # A second run knows of the failures of the first.
    assert do(items, tmp_path / "out", max_failure_rate=0.4).end == end
    assert do(items, tmp_path / "out", max_failure_rate=0.5).end == FINISHED


def test_a_job_whose_next_input_hangs_can_be_stopped(tmp_path: Path) -> None:
    is_open = threading.Event()
    items = numbered(12)

    def hang() -> bytes:
        is_open.wait()
        return b""

    items[11] = replace(items[11], read=hang)
    done = 0

    def see(progress: Any) -> None:
        nonlocal done
        done = progress.rows

    found = do(items, tmp_path / "out", batch_size=1, on_progress=see, is_stopped=lambda: done == 11)
    is_open.set()
    assert (found.end, found.rows) == (STOPPED, 11)
    assert do(numbered(12), tmp_path / "out").rows == 1
    assert lengths_in(tmp_path / "out") == list(range(1, 13))


def test_progress_knows_the_total_of_a_shard(tmp_path: Path) -> None:
    totals = set()
    do(numbered(45), tmp_path / "out", shard=(1, 2), on_progress=lambda each: totals.add(each.total))
    assert totals - {None} == {20}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rows_per_file": 0}, "rows_per_file is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"window": -1}, "window is -1"),
        ({"shard": (2, 2)}, "shard is 2/2"),
        ({"max_failure_rate": 2}, "max_failure_rate is 2"),
        ({"timeout_s": 0}, "timeout_s is 0"),
        ({"clients": ()}, "no clients"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    client: Any = FakeClient()
    arguments: dict[str, Any] = {"task": TASK, "source": Items([]), "out": "out", "clients": [client]}
    with pytest.raises(ValueError, match=says):
        Job(**arguments | changes)

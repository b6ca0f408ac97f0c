"""Batch jobs through a real gateway: every input has its row, whatever is broken, stopped or killed."""

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

import bad_input
from export.demo import scenes
from gateway.server import Gateway
from gateway.settings import Settings
from visiongate import AsyncClient, Client, VisiongateError
from visiongate.batch import servers
from visiongate.batch.inputs import open_source
from visiongate.batch.item import Item
from visiongate.batch.job import FINISHED, STOPPED, TOO_MANY_FAILED, Job, Summary, run
from visiongate.batch.progress import Progress
from visiongate.batch.task import Row, Task
from visiongate.batch.tasks import make_task
from visiongate.command_error import CommandError

PATIENCE_S = 60.0
WORDS = ["red circle", "blue star"]
TASKS: dict[str, dict[str, Any]] = {
    "embed": {},
    "classify": {"labels": WORDS},
    "detect": {"phrases": WORDS, "min_score": 0.3},
    "segment": {"phrases": WORDS, "min_score": 0.3},
    "ocr": {},
    "gaze": {},
}
EVERYTHING: dict[str, Any] = {"points_per_side": 4}


# The command, but the 46th input and all after it take for ever to be read.
HANGING = """
import threading
from visiongate.batch import reading
read = reading._read
def hanging(key, item, budget):
    if item.id >= "45.png":
        threading.Event().wait()
    return read(key, item, budget)
reading._read = hanging
from visiongate_command import main
main()
"""


def scene(seed: int) -> bytes:
    picture = scenes.draw(scenes.FIRST_UNSEEN_SEED + seed, 96, 80).image
    return bad_input.encoded(Image.fromarray(picture), "PNG")


def broken_kinds() -> dict[str, Callable[[Path], object]]:
    """What may be in the place of an image, by the status that its row has."""
    whole = scene(0)
    return {
        "empty INVALID_ARGUMENT": lambda path: path.write_bytes(b""),
        "text INVALID_ARGUMENT": lambda path: path.write_text("no image"),
        "cut INVALID_ARGUMENT": lambda path: path.write_bytes(whole[: len(whole) // 2]),
        "link NOT_FOUND": lambda path: path.symlink_to("nowhere.png"),
        "huge INVALID_ARGUMENT": lambda path: path.write_bytes(bad_input.webp_of(16383, 16383)),
        "large INVALID_ARGUMENT": lambda path: _sparse(path, 80 << 20),
        "message RESOURCE_EXHAUSTED": lambda path: _sparse(path, 40 << 20),
    }


def _sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def name_of(number: int) -> str:
    """Equal names in two folders, with spaces and letters beyond ASCII."""
    return f"{'abc'[number % 3]}/{number // 3:03d} é.png"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70 files, of which one in ten is broken, in three folders, two of them with equal names."""
    folder = tmp_path_factory.mktemp("corpus")
    kinds = list(broken_kinds().items())
    for number in range(70):
        path = folder / name_of(number)
        path.parent.mkdir(exist_ok=True)
        if number % 10 == 5:
            kinds[number // 10][1](path)
        else:
            path.write_bytes(scene(number))
    return folder


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images, and one that is broken."""
    folder = tmp_path_factory.mktemp("few")
    for number in range(7):
        path = folder / f"{number}.png"
        path.write_bytes(b"broken" if number == 3 else scene(number))
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 images."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(60):
        (folder / f"{number:02d}.png").write_bytes(scene(number))
    return folder


@pytest.fixture
def client(demo_client: AsyncClient) -> Iterator[Client]:
    """A client of the session's gateway, for other threads than that of its event loop."""
    with Client(demo_client.address) as connected:
        yield connected


async def do(task: Task, inputs: Path | Sequence[str], out: Path, *clients: Client, **more: Any) -> Summary:
    source = open_source([str(inputs)] if isinstance(inputs, Path) else inputs)
    more = {"max_failure_rate": 1.0, "rows_per_file": 20} | more
    job = Job(task=task, source=source, out=str(out), clients=clients, **more)
    return await asyncio.to_thread(run, job)


def rows(out: Path) -> list[dict[str, Any]]:
    """All rows, less what differs in each run."""
    found = [path for path in sorted(out.iterdir()) if path.name.startswith("part-")]
    every: list[dict[str, Any]] = pa.concat_tables(map(parquet.read_table, found)).to_pylist()
    for row in every:
        row.pop("elapsed_ms")
    return every


def assert_same(found: Any, expected: Any) -> None:
    """The same values; numbers of models nearly, as requests of other sizes round otherwise."""
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-3, nan_ok=True)
    else:
        assert found == expected


async def test_each_input_has_its_row_and_broken_ones_say_why(
    client: Client, corpus: Path, tmp_path: Path
) -> None:
    summary = await do(make_task("embed"), corpus, tmp_path / "out", client, batch_size=8)
    every = rows(tmp_path / "out")
    places = sorted(("abc"[number % 3], number) for number in range(70))
    assert [row["id"] for row in every] == [name_of(number) for _, number in places]
    expected = {name_of(10 * number + 5): kind.split()[1] for number, kind in enumerate(broken_kinds())}
    failed = {row["id"]: row["status"] for row in every if row["status"] != "OK"}
    assert failed == expected
    assert summary.end == FINISHED
    assert (summary.rows, summary.ok, sum(summary.failed.values())) == (70, 63, 7)
    for row in every:
        is_ok = row["status"] == "OK"
        assert is_ok == (row["embedding"] is not None) == (row["error_message"] == "")
        assert is_ok == (row["width"] is not None)
        assert "images[" not in row["error_message"]
    alone = make_task("embed")
    for row in every[::9]:
        if row["status"] == "OK":
            data = (corpus / row["id"]).read_bytes()
            (found,) = alone.rows(await asyncio.to_thread(client.call, alone.operation([data])))
            assert isinstance(found, Row)
            assert np.allclose(row["embedding"], found.values["embedding"], atol=1e-5)
            assert (row["width"], row["height"]) == (found.width, found.height)


@pytest.mark.parametrize("name", [*TASKS, "everything"])
async def test_the_answers_of_every_task_are_those_of_single_calls(
    client: Client, few: Path, tmp_path: Path, name: str
) -> None:
    task = make_task("segment", **EVERYTHING) if name == "everything" else make_task(name, **TASKS[name])
    await do(task, few, tmp_path / "out", client)
    every = rows(tmp_path / "out")
    assert [row["status"] == "OK" for row in every] == [number != 3 for number in range(7)]
    columns = task.columns.names
    for row in every:
        (alone,) = task.rows(
            await asyncio.to_thread(client.call, task.operation([(few / row["id"]).read_bytes()]))
        )
        if isinstance(alone, VisiongateError):
            assert (row["status"], row["error_message"]) == (alone.code.name, alone.message)
            assert all(row[column] is None for column in columns)
        else:
            written = pa.Table.from_pylist([dict(alone.values)], schema=task.columns).to_pylist()[0]
            assert_same({column: row[column] for column in columns}, written)


async def test_shards_side_by_side_are_one_run(client: Client, many: Path, tmp_path: Path) -> None:
    task = make_task("embed")
    await do(task, many, tmp_path / "one", client)
    summaries = await asyncio.gather(
        *(do(task, many, tmp_path / "two", client, shard=(index, 2)) for index in range(2))
    )
    assert [summary.rows for summary in summaries] == [40, 20]
    names = {path.name for path in (tmp_path / "one").iterdir()}
    in_two = {path.name for path in (tmp_path / "two").iterdir()}
    assert in_two == names - {"_summary.json"} | {"_summary-0-of-2.json", "_summary-1-of-2.json"}
    assert_same(rows(tmp_path / "two"), rows(tmp_path / "one"))


async def test_a_stopped_job_goes_on_where_it_was(client: Client, many: Path, tmp_path: Path) -> None:
    task, out = make_task("embed"), tmp_path / "out"
    rows_done = 0

    def see(progress: Progress) -> None:
        nonlocal rows_done
        rows_done = progress.rows

    class Hanging:
        """The images, of which the 46th and all after it take for ever to be read."""

        name, ignored = open_source([str(many)]).name, 0

        def __iter__(self) -> Iterator[Item]:
            for number, item in enumerate(open_source([str(many)])):
                yield item if number < 45 else replace(item, read=hang)

        def count(self) -> int:
            return 60

    ended = threading.Event()

    def hang() -> bytes:
        ended.wait()
        return b""

    job = Job(
        task=task,
        source=Hanging(),
        out=str(out),
        clients=[client],
        rows_per_file=20,
        batch_size=2,
        on_progress=see,
        is_stopped=lambda: rows_done >= 40,
    )
    stopped = await asyncio.to_thread(run, job)
    ended.set()
    # The 45th waits for the 46th, to be asked about together.
    assert (stopped.end, stopped.rows) == (STOPPED, 44)
    assert [path.name for path in out.glob("_open-*")] == ["_open-000002.parquet"]
    rest = await do(task, many, out, client)
    assert (rest.end, rest.rows, rest.skipped) == (FINISHED, 16, 40)
    assert not list(out.glob("_open-*"))
    await do(task, many, tmp_path / "undisturbed", client)
    assert_same(rows(out), rows(tmp_path / "undisturbed"))


async def test_too_many_failures_end_a_job_early(client: Client, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(300):
        (folder / f"{number:03d}.png").write_bytes(b"broken")
    summary = await do(make_task("embed"), folder, tmp_path / "out", client, max_failure_rate=0.5)
    assert (summary.end, summary.rows) == (TOO_MANY_FAILED, 100)
    again = await do(make_task("embed"), folder, tmp_path / "out", client)
    assert (again.end, again.rows + again.skipped) == (FINISHED, 300)


async def test_failed_inputs_are_done_again_in_place(client: Client, few: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(7):
        (folder / f"{number}.png").write_bytes((few / f"{number}.png").read_bytes())
    (folder / "5.png").unlink()
    (folder / "5.png").symlink_to(tmp_path / "later.png")
    await do(make_task("embed"), folder, tmp_path / "out", client)
    (tmp_path / "later.png").write_bytes(scene(5))
    summary = await do(make_task("embed"), folder, tmp_path / "out", client, retry_failed=True)
    assert (summary.rows, summary.ok) == (2, 1)
    every = rows(tmp_path / "out")
    assert [row["id"] for row in every if row["status"] != "OK"] == ["3.png"]
    assert every[5]["embedding"] is not None


async def test_a_server_that_dies_leaves_its_work_to_the_others(
    client: Client, many: Path, demo_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "_SILENCE_S", 0.1)
    loop = asyncio.get_running_loop()
    second = Gateway(demo_settings)
    await second.__aenter__()
    ended: Any = None

    def see(progress: Progress) -> None:
        nonlocal ended
        if progress.rows and ended is None:
            ended = asyncio.run_coroutine_threadsafe(second.__aexit__(None, None, None), loop)

    with Client(f"127.0.0.1:{second.port}") as other:
        summary = await do(
            make_task("embed"), many, tmp_path / "out", client, other, batch_size=1, window=1, on_progress=see
        )
    await asyncio.wrap_future(ended)
    assert (summary.end, summary.ok) == (FINISHED, 60)
    assert [row["id"] for row in rows(tmp_path / "out")] == [f"{number:02d}.png" for number in range(60)]


@pytest.mark.parametrize(
    ("task", "says"),
    [
        (lambda: make_task("embed", model="nope"), "no variant 'nope'"),
        (lambda: make_task("classify", labels=["x" * 50_000]), "labels"),
    ],
)
async def test_an_error_of_the_job_is_no_row(
    client: Client, few: Path, tmp_path: Path, task: Callable[[], Task], says: str
) -> None:
    with pytest.raises((VisiongateError, CommandError, ValueError), match=says):
        await do(task(), few, tmp_path / "out", client)
    assert not (tmp_path / "out").exists()


async def test_a_job_leaves_no_thread(client: Client, few: Path, tmp_path: Path) -> None:
    def fail(progress: Progress) -> None:
        raise RuntimeError("from the caller")

    with pytest.raises(RuntimeError, match="from the caller"):
        await do(make_task("embed"), few, tmp_path / "out", client, on_progress=fail)
    deadline = time.monotonic() + PATIENCE_S
    while any(thread.name.startswith("visiongate-") for thread in threading.enumerate()):
        assert time.monotonic() < deadline, [thread.name for thread in threading.enumerate()]
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_signal_loses_at_most_the_open_file(
    client: Client, many: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    arguments = ["embed", str(many), "--out", str(out), "--rows-per-file", "10", "--server", client.address]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HANGING, "batch", *arguments, "--batch-size", "2", stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + PATIENCE_S
    while not (out / "part-000003.parquet").exists():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    process.send_signal(number)
    _, said = await process.communicate()
    if number == signal.SIGTERM:
        assert process.returncode == 128 + number
        assert said.decode() == "stopped after 44 rows, which are kept: run the same again to go on\n"
    else:
        assert process.returncode == -number
    rest = await do(make_task("embed"), many, out, client, rows_per_file=10)
    assert (rest.rows, rest.skipped) == (16 if number == signal.SIGTERM else 20, 40)
    assert {path.name for path in out.iterdir()} == {
        "_job.json",
        "_summary.json",
        *(f"part-{index:06d}.parquet" for index in range(6)),
    }
    await do(make_task("embed"), many, tmp_path / "undisturbed", client, rows_per_file=10)
    assert_same(rows(out), rows(tmp_path / "undisturbed"))

"""A job: every input of a source is asked about, and has a row in the output.

    with visiongate.Client() as client:
        summary = run(Job(
            task=make_task("embed"), source=open_source(["photos"]), out="embeddings", clients=[client]
        ))

Run again, it does what is not done yet.
"""

import importlib.metadata
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

from visiongate.batch.columns import OK
from visiongate.batch.files import Block, FileWriter, job_schema
from visiongate.batch.flow import Flow, Result
from visiongate.batch.item import Item, Source
from visiongate.batch.manifest import Manifest, claim
from visiongate.batch.models import changed_model, models_of
from visiongate.batch.output import Output
from visiongate.batch.plan import Plan, make_plan
from visiongate.batch.progress import Meter, Progress
from visiongate.batch.reading import Failure
from visiongate.batch.store import Store, open_store
from visiongate.batch.task import Task
from visiongate.batch.tasks import probed
from visiongate.batch.wording import of_server
from visiongate.client import Client
from visiongate.command_error import CommandError
from visiongate.errors import VisiongateError

ROWS_PER_FILE = 1000
TIMEOUT_S = 600.0
MAX_FAILURE_RATE = 0.2
# Fewer rows tell nothing about the rate of failures.
_ENOUGH_ROWS = 100
# Requests under way at each server: so many that they have this many inputs, within limits.
_INPUTS_UNDER_WAY = 64
_LEAST_WINDOW, _MOST_WINDOW = 4, 32
_PAUSE_S = 1.0

FINISHED, STOPPED, TOO_MANY_FAILED = "finished", "stopped", "too many failed"
"""How a job ends."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be done.

    out: a folder, or an address such as s3://bucket/folder. clients: of servers with the same models, which
    share the work. batch_size: inputs of a request, by default the task's. window: requests under way at each
    server. timeout_s: how long an input may take, waiting for a server included. shard: (i, n), i from 0: of
    the output's files only each n-th, from the i-th on. max_failure_rate: what share of the inputs may fail.
    on_progress: called some times a second. is_stopped: asked as often; once it says so, what is under way is
    finished, and what is done is kept.
    """

    task: Task
    source: Source
    out: str
    clients: Sequence[Client]
    rows_per_file: int = ROWS_PER_FILE
    batch_size: int | None = None
    window: int | None = None
    timeout_s: float = TIMEOUT_S
    shard: tuple[int, int] = (0, 1)
    retry_failed: bool = False
    overwrite: bool = False
    max_failure_rate: float = MAX_FAILURE_RATE
    on_progress: Callable[[Progress], None] = lambda progress: None
    is_stopped: Callable[[], bool] = lambda: False

    def __post_init__(self) -> None:
        for name in ("rows_per_file", "batch_size", "window"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}: give a whole number, 1 or more")
        index, count = self.shard
        if not 0 <= index < count:
            raise ValueError(f"shard is {index}/{count}: give i/n, i from 0 to n - 1")
        if not 0 <= self.max_failure_rate <= 1:
            raise ValueError(f"max_failure_rate is {self.max_failure_rate}: give a share, 0 to 1")
        if not self.timeout_s > 0:
            raise ValueError(f"timeout_s is {self.timeout_s}: give seconds, more than 0")
        if not self.clients:
            raise ValueError("a job has no clients: give one for each server")


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a job has done.

    end: FINISHED, STOPPED or TOO_MANY_FAILED. rows: those of this run, of which `ok` have results, and
    `failed` counts the others by status. skipped: rows that earlier runs made, of which `skipped_failed`
    failed. lost: servers that took no more part at some time, and why. gone: rows of inputs that the source
    has no more. ignored: files of the source that are no images by their names. seconds: of this run.
    first_failure: id and message of its first row that failed.
    """

    end: str
    rows: int
    ok: int
    failed: Mapping[str, int] = field(default_factory=dict)
    skipped: int = 0
    skipped_failed: int = 0
    lost: Mapping[str, str] = field(default_factory=dict)
    gone: int = 0
    ignored: int = 0
    seconds: float = 0.0
    first_failure: str = ""


def run(job: Job) -> Summary:
    """Do what is not done yet of a job. Return what became of it, and write that to its folder.

    Raises CommandError, VisiongateError, ValueError or OSError, with a sentence, for what stops the job. What
    is done until then stays, and the next run goes on from there.
    """
    if next(iter(job.source), None) is None:
        ignored = f" ({job.source.ignored} files are no images by their names)" if job.source.ignored else ""
        raise CommandError(f"{job.source.name} has no inputs{ignored}")
    (task, *_) = [_probed(job, client) for client in job.clients]
    models = models_of(job.clients, task.models)
    store = open_store(job.out)
    index, count = job.shard
    manifest = Manifest(
        task=task.name,
        settings=task.settings,
        source=job.source.name,
        rows_per_file=job.rows_per_file,
        models=models,
        version=importlib.metadata.version("visiongate"),
    )
    with store.lock(job.shard):
        claim(store, manifest, overwrite=job.overwrite, shard_count=count)
        name = "_summary.json" if count == 1 else f"_summary-{index}-of-{count}.json"
        # That of an earlier run says nothing about this one, which may end without any.
        store.remove(name)
        plan = make_plan(job.source, Output(store), job.rows_per_file, job.shard, job.retry_failed)
        summary = _Run(job, task, store, plan, manifest).summary()
        store.write_bytes(name, json.dumps(asdict(summary), indent=1).encode())
    return summary


def _probed(job: Job, client: Client) -> Task:
    try:
        return probed(job.task, client)
    except VisiongateError as error:
        raise (error if len(job.clients) == 1 else of_server(error, client)) from error


class _Run:
    """The work on what a plan says."""

    def __init__(self, job: Job, task: Task, store: Store, plan: Plan, manifest: Manifest) -> None:
        self._job = job
        self._task = task
        self._store = store
        self._plan = plan
        self._models = manifest.models
        about = {name: getattr(manifest, name) for name in ("task", "settings", "models", "version")}
        self._schema = job_schema(task.columns, about)
        self._meter = Meter()
        self._meter.skipped = plan.done
        # Blocks whose inputs were taken, and that are not written. The first is under way.
        self._blocks: deque[Block] = deque()
        self._writer: FileWriter | None = None
        self._flow: Flow[tuple[Block, int]]
        self._first_failure = ""
        self._is_stopped = False
        # Whether a block stays unwritten, as nobody says which models its rows are from.
        self._is_cut = False
        self._is_mixed = False

    def summary(self) -> Summary:
        threading.Thread(target=self._count, name="visiongate-count", daemon=True).start()
        batch_size = self._job.batch_size or self._task.batch_size
        window = self._job.window or min(max(_INPUTS_UNDER_WAY // batch_size, _LEAST_WINDOW), _MOST_WINDOW)
        with ExitStack() as stack:
            stack.callback(self._close)
            self._flow = stack.enter_context(
                Flow(
                    self._entries(),
                    self._task,
                    self._job.clients,
                    batch_size=batch_size,
                    window=window,
                    timeout_s=self._job.timeout_s,
                )
            )
            self._meter.stages = self._flow.stages
            too_many = False
            try:
                for result in self._flow.results(self._tick):
                    self._add(result)
                    if self._is_cut or (too_many := self._too_many_failed(at_end=False)):
                        break
                if not too_many and not self._is_stopped:
                    self._finish_before(None)
                    too_many = self._too_many_failed(at_end=True)
            finally:
                self._keep()
            self._show()
        end = TOO_MANY_FAILED if too_many else STOPPED if self._is_stopped else FINISHED
        return self._made(end)

    def _made(self, end: str) -> Summary:
        failed = self._meter.failed
        return Summary(
            end=end,
            rows=self._meter.rows,
            ok=self._meter.rows - sum(failed.values()),
            failed=failed,
            skipped=self._plan.done,
            skipped_failed=self._skipped_failed,
            lost=dict(self._flow.lost),
            gone=self._plan.gone,
            ignored=self._job.source.ignored,
            seconds=round(self._meter.seconds, 3),
            first_failure=self._first_failure,
        )

    def _count(self) -> None:
        """Find out how many rows there will be. Whatever goes wrong here, the work itself says."""
        try:
            pending = self._plan.pending(self._job.source.count())
        except Exception:
            return
        if pending is not None:
            self._meter.total = self._plan.done + pending

    def _entries(self) -> Iterator[tuple[tuple[Block, int], Item]]:
        for block in self._plan.blocks():
            self._blocks.append(block)
            for position, item in block.items.items():
                yield (block, position), item

    def _tick(self) -> None:
        if not self._is_stopped and self._job.is_stopped():
            self._is_stopped = True
            self._flow.stop()
        self._show()

    def _show(self) -> None:
        self._meter.lost = len(self._flow.lost)
        self._job.on_progress(self._meter.progress())

    def _add(self, result: Result[tuple[Block, int]]) -> None:
        block, position = result.key
        self._finish_before(block)
        if self._writer is None:
            self._writer = FileWriter(self._store, self._schema, block)
        row = _row(result)
        self._writer.add(position, row)
        self._meter.add(row["status"])
        if row["status"] != OK and not self._first_failure:
            self._first_failure = f"{row['id']}: {row['error_message']}"
        if self._writer.is_full:
            self._finish()

    def _finish_before(self, block: Block | None) -> None:
        """Write the blocks before one, by default all. Of those all rows are kept ones."""
        while self._blocks and self._blocks[0] is not block and not self._is_cut:
            self._writer = FileWriter(self._store, self._schema, self._blocks[0])
            self._finish()

    def _finish(self) -> None:
        """Write the file of the first block, if its rows all come from the models of the job."""
        assert self._writer is not None
        if not self._are_models_known():
            return
        self._writer.finish()
        self._writer = None
        self._blocks.popleft()

    def _are_models_known(self) -> bool:
        """Wait until a server says which models it has. Return False if the job is stopped meanwhile."""
        end = time.monotonic() + self._job.timeout_s
        while (change := self._changed_model()) is None:
            if self._job.is_stopped():
                self._is_stopped = self._is_cut = True
                return False
            if time.monotonic() > end:
                raise CommandError(f"no server has answered for {self._job.timeout_s:g} s")
            time.sleep(_PAUSE_S)
        if change:
            self._is_mixed = True
            raise CommandError(change)
        return True

    def _changed_model(self) -> str | None:
        clients = self._flow.present or self._job.clients
        return changed_model(clients, self._task.models, self._models)

    def _keep(self) -> None:
        """Keep the rows of a block that is not full."""
        if self._writer is not None and not self._is_mixed:
            self._writer.keep()
        self._close()

    def _close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    @property
    def _skipped_failed(self) -> int:
        return sum(count for status, count in self._plan.statuses.items() if status != OK)

    def _too_many_failed(self, *, at_end: bool) -> bool:
        failed, rows = sum(self._meter.failed.values()), self._meter.rows
        if at_end:
            failed, rows = failed + self._skipped_failed, rows + self._plan.done
        elif rows < _ENOUGH_ROWS:
            return False
        return failed > self._job.max_failure_rate * rows


def _row(result: Result[Any]) -> dict[str, Any]:
    """Return the values of a row's columns."""
    outcome = result.outcome
    assert outcome is not None
    row: dict[str, Any] = {
        "id": result.item.id,
        "version": result.item.version,
        "time_s": result.item.time_s,
        "sha256": result.sha256,
        "elapsed_ms": result.elapsed_ms,
        "status": OK,
        "error_message": "",
    }
    if isinstance(outcome, Failure):
        return row | {"status": outcome.status, "error_message": outcome.message}
    return {**row, "width": outcome.width, "height": outcome.height, **outcome.values}

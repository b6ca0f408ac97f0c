"""What commands that ask about many images share: their options, how they show progress, how they end."""

import functools
import inspect
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from visiongate import Client
from visiongate.batch.extra import needs
from visiongate.command_error import CommandError
from visiongate.commands.common import fail, note, progress_line, progress_log
from visiongate.commands.job_report import sentence_of, too_many_failed
from visiongate.commands.options import SERVER, client_arguments
from visiongate.commands.signature import with_options
from visiongate.commands.stopping import stop_in_order

if TYPE_CHECKING:
    from visiongate.batch.item import Source
    from visiongate.batch.job import Summary
    from visiongate.batch.progress import Progress
    from visiongate.batch.task import Task

INPUTS = "Inputs"
JOB = "Job"
"""Panels of the help."""

TOO_MANY_FAILED_CODE = 3
"""The exit code of a job of which more inputs failed than --max-failure-rate allows."""

INPUT_HELP = (
    "A folder, a pattern such as 'photos/**/*.jpg', an image file, a list of paths or addresses (.txt), a "
    "table (.csv, .tsv, .jsonl, .parquet), WebDataset archives ('shard-{000..099}.tar'), a video, or - for a "
    "list from standard input. Here, or in a bucket: s3://bucket/folder, gs://bucket/folder. Any number."
)


def input_arguments(
    column: Annotated[
        str,
        typer.Option(
            help="Of a table: the column that has the images, or their paths or addresses.",
            show_default="image, path, file_name or the like",
            rich_help_panel=INPUTS,
        ),
    ] = "",
    id_column: Annotated[
        str,
        typer.Option(
            help="Of a table: the column of the ids.", show_default="the paths", rich_help_panel=INPUTS
        ),
    ] = "",
    every_nth: Annotated[
        int, typer.Option(help="Of a video: take each n-th frame.", min=1, rich_help_panel=INPUTS)
    ] = 1,
    all_files: Annotated[
        bool,
        typer.Option(
            "--all-files",
            help="Of a folder: take all files, and not only those that are images by their names.",
            rich_help_panel=INPUTS,
        ),
    ] = False,
    kind: Annotated[
        str,
        typer.Option(
            help="What the inputs are, where their names do not say it: images, list, csv, tsv, jsonl, "
            "parquet, tar or video. Of a folder, only files of this kind are taken.",
            show_default="by their names",
            rich_help_panel=INPUTS,
        ),
    ] = "",
) -> dict[str, Any]:
    """Return what `open_source` is called with."""
    return {
        "column": column,
        "id_column": id_column,
        "every_nth": every_nth,
        "all_files": all_files,
        "kind": kind,
    }


def work_arguments(
    batch_size: Annotated[
        int | None,
        typer.Option(help="Inputs of a request.", min=1, show_default="the task's", rich_help_panel=JOB),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(
            help="Requests under way at each server.",
            min=1,
            show_default="by the batch size",
            rich_help_panel=JOB,
        ),
    ] = None,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed", help="Do inputs anew that failed in earlier runs.", rich_help_panel=JOB
        ),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Remove the rows of earlier runs first.", rich_help_panel=JOB),
    ] = False,
    max_failure_rate: Annotated[
        float,
        typer.Option(
            help="What share of the inputs may fail. If more do, the job stops with exit code 3; it is "
            "looked at after 100 inputs, and at the end.",
            min=0,
            max=1,
            rich_help_panel=JOB,
        ),
    ] = 0.2,
    json_log: Annotated[
        bool,
        typer.Option(
            "--json-log",
            help="Say how far the job is as a line of JSON every 10 seconds, on standard error.",
            rich_help_panel=JOB,
        ),
    ] = False,
) -> dict[str, Any]:
    """Return settings of a job, as `Work` has them."""
    return {
        "batch_size": batch_size,
        "window": window,
        "retry_failed": retry_failed,
        "overwrite": overwrite,
        "max_failure_rate": max_failure_rate,
        "json_log": json_log,
    }


def patient_options() -> dict[str, inspect.Parameter]:
    """Return the options of `client_arguments`, for calls that may wait as long as a job's inputs may."""
    options = dict(inspect.signature(client_arguments).parameters)
    timeout = typer.Option(
        help="Seconds that an input may take, waiting for a server that is full or gone included.",
        rich_help_panel=SERVER,
    )
    options["timeout"] = options["timeout"].replace(annotation=Annotated[float, timeout], default=600.0)
    return options


def _server_options() -> list[inspect.Parameter]:
    """Return the options of `client_arguments`, for several servers, and for calls that may wait."""
    options = patient_options()
    server = typer.Option(
        help="Address of a server, HOST:PORT; repeat for more, which share the work.",
        envvar="VISIONGATE_SERVER",
        rich_help_panel=SERVER,
    )
    options["server"] = options["server"].replace(
        annotation=Annotated[list[str], server], default=[options["server"].default]
    )
    return [*options.values()]


class TooManyFailed(typer.Exit):
    """More inputs of a job failed than may. It is said already."""

    def __init__(self, summary: "Summary") -> None:
        super().__init__(TOO_MANY_FAILED_CODE)
        self.summary = summary


@dataclass(frozen=True)
class Work:
    """A job as the options say it, less its task, its inputs and its output. See `job_options`."""

    source_options: dict[str, Any]
    settings: dict[str, Any]
    client_options: dict[str, Any]
    json_log: bool

    def source(self, inputs: Sequence[str]) -> "Source":
        """Return the inputs that texts name. Raise CommandError, OSError or ValueError if they cannot be."""
        with needs("batch"):
            from visiongate.batch.inputs import open_source  # noqa: PLC0415
        return open_source(inputs, **self.source_options)

    @contextmanager
    def clients(self) -> Iterator[list[Client]]:
        """Lend a client for each server."""
        options = dict(self.client_options)
        with ExitStack() as stack:
            yield [
                stack.enter_context(Client(address, **options))
                for address in dict.fromkeys(options.pop("address"))
            ]

    def run(
        self, task: "Task", source: "Source", out: str, clients: Sequence[Client], **more: Any
    ) -> "Summary":
        """Do a job, and show how far it is. `more` are further settings of `Job`.

        Raises SystemExit once a signal has stopped it, and TooManyFailed: what is done is kept, and said.
        """
        from visiongate.batch.job import STOPPED, TOO_MANY_FAILED, Job, run  # noqa: PLC0415

        with ExitStack() as stack:
            stop = stack.enter_context(stop_in_order())
            if self.json_log:
                log = stack.enter_context(progress_log())

                def show(progress: "Progress") -> None:
                    log(progress.as_dict())
            else:
                line = stack.enter_context(progress_line())

                def show(progress: "Progress") -> None:
                    line(sentence_of(progress), progress.rows + progress.skipped, progress.total)

            summary = run(
                Job(
                    task=task,
                    source=source,
                    out=out,
                    clients=clients,
                    timeout_s=self.client_options["timeout"],
                    on_progress=show,
                    is_stopped=stop.is_requested,
                    **self.settings,
                    **more,
                )
            )
        if summary.end == STOPPED:
            note(f"stopped after {summary.rows:,} rows, which are kept: run the same again to go on")
            raise SystemExit(128 + stop.signal)
        if summary.end == TOO_MANY_FAILED:
            fail(too_many_failed(summary, out))
            raise TooManyFailed(summary)
        return summary


def job_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a job's inputs, work and servers, and a `Work` as its first argument."""
    groups = [
        [*inspect.signature(input_arguments).parameters.values()],
        [*inspect.signature(work_arguments).parameters.values()],
        _server_options(),
    ]

    @with_options(command, [option for group in groups for option in group])
    @functools.wraps(command)
    def run(**values: Any) -> None:
        source, settings, server = (
            {option.name: values.pop(option.name) for option in group} for group in groups
        )
        settings = work_arguments(**settings)
        json_log = settings.pop("json_log")
        command(Work(input_arguments(**source), settings, client_arguments(**server), json_log), **values)

    return run


def read_shard(text: str) -> tuple[int, int]:
    """Read i/n, or auto/n for a pod of an Indexed Job. Raise CommandError for anything else."""
    match = re.fullmatch(r"(\d+|auto)/(\d+)", text.strip())
    if match is None:
        raise CommandError(f"--shard is {text!r}: give i/n, i from 0 to n - 1, or auto/n in an Indexed Job")
    index = match[1]
    if index == "auto":
        index = os.environ.get("JOB_COMPLETION_INDEX", "")
        if not index.isdecimal():
            raise CommandError(
                "--shard auto/n reads the variable JOB_COMPLETION_INDEX, which Kubernetes sets in the pods "
                f"of an Indexed Job, and it is {index!r} here: give i/n"
            )
    if not int(index) < int(match[2]):
        raise CommandError(f"--shard is {index}/{match[2]}: i is from 0 to n - 1")
    return int(index), int(match[2])

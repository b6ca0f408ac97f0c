"""`visiongate batch`: a task for every image of a folder, a table, an archive, a video or a bucket."""

import inspect
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from visiongate.batch.extra import needs
from visiongate.command_error import CommandError
from visiongate.commands.batch_tasks import TASKS, TaskOptions
from visiongate.commands.common import AsJson, note
from visiongate.commands.job_report import report_summary
from visiongate.commands.jobs import (
    INPUT_HELP,
    JOB,
    TooManyFailed,
    Work,
    job_options,
    read_shard,
)

app = typer.Typer(rich_markup_mode="markdown")
tasks = typer.Typer(rich_markup_mode="markdown", no_args_is_help=True)
app.add_typer(
    tasks,
    name="batch",
    help="""Do a task for every image of a folder, a table, an archive, a video or a bucket.

    The output is a folder of Parquet files with a row for each image, in the order of the inputs. An image
    that cannot be used has a row that says why. Run again, the job does what is not done yet: what is new,
    what has changed, and what a job that was stopped or killed has left. For example:

    ```
    visiongate batch embed photos --out embeddings
    visiongate batch classify photos --label cat --label dog --out labels
    visiongate batch detect 's3://bucket/photos/**/*.jpg' --phrase truck --out s3://bucket/trucks
    visiongate batch segment photos --phrase wheel --out wheels --format yolo
    visiongate batch ocr scans.parquet --column image --id-column page --out text
    visiongate batch gaze talk.mp4 --every-nth 25 --out gaze
    ```

    `visiongate batch TASK --help` has the options of each task. In Python the rows are
    `pyarrow.parquet.read_table("embeddings")`, or `pandas.read_parquet("embeddings")`.

    Exit code 0: done. 1: stopped, with a sentence. 3: too many inputs failed. 128 + N: stopped by signal N; a
    first one lets the requests under way finish.
    """,
)

InputArguments = Annotated[list[str], typer.Argument(metavar="INPUT...", help=INPUT_HELP)]


def output_arguments(
    inputs: InputArguments,
    out: Annotated[
        str,
        typer.Option(metavar="DIR", help="The folder of the output, here or in a bucket. It is made."),
    ],
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="Beside Parquet: coco or yolo (detect, segment), npy (embed), jsonl; repeat for more.",
            rich_help_panel=JOB,
        ),
    ] = None,
    rows_per_file: Annotated[
        int, typer.Option(help="Rows of each Parquet file.", min=1, rich_help_panel=JOB)
    ] = 1000,
    shard: Annotated[
        str,
        typer.Option(
            metavar="i/n",
            help="Do a part of the job: of n processes, each with its own i from 0, which write to the same "
            "folder. auto/n takes i from JOB_COMPLETION_INDEX.",
            show_default="all",
            rich_help_panel=JOB,
        ),
    ] = "0/1",
    as_json: AsJson = False,
) -> None:
    """Have the options of a job's output."""


def _add_command(task: TaskOptions) -> None:
    inputs, out, *output = inspect.signature(output_arguments).parameters.values()

    def command(
        work: Work,
        inputs: list[str],
        out: str,
        formats: list[str] | None,
        rows_per_file: int,
        shard: str,
        as_json: bool,
        **values: Any,
    ) -> None:
        settings = task.read_values(values)
        _do(task.name, settings, work, inputs, out, formats or [], rows_per_file, read_shard(shard), as_json)

    first = inspect.Parameter("work", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = [first, inputs, out, *task.parameters, *output]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    tasks.command(task.name, help=task.help)(job_options(command))


def _do(
    name: str,
    settings: dict[str, Any],
    work: Work,
    inputs: list[str],
    out: str,
    formats: Sequence[str],
    rows_per_file: int,
    shard: tuple[int, int],
    as_json: bool,
) -> None:
    with needs("batch"):
        from visiongate.batch.formats import check_format, write_format  # noqa: PLC0415
        from visiongate.batch.output import Output  # noqa: PLC0415
        from visiongate.batch.store import open_store  # noqa: PLC0415
        from visiongate.batch.tasks import make_task  # noqa: PLC0415
    for format_name in formats:
        check_format(format_name, name)
    if formats and shard[1] > 1:
        raise CommandError(
            "--format is made of the files of all shards: leave it out, and once they are done run the same "
            "without --shard"
        )
    task = make_task(name, **settings)
    source = work.source(inputs)
    try:
        with work.clients() as clients:
            summary = work.run(task, source, out, clients, rows_per_file=rows_per_file, shard=shard)
    except TooManyFailed as end:
        report_summary(end.summary, out, as_json)
        raise
    report_summary(summary, out, as_json)
    store = open_store(out)
    for format_name in formats:
        for sentence in write_format(format_name, Output(store), store):
            note(sentence)


for each in TASKS:
    _add_command(each)

"""The jobs of commands over folders: each asks about every photo, and goes on from where it was stopped."""

from pathlib import Path
from typing import TYPE_CHECKING

from visiongate import Client
from visiongate.command_error import CommandError
from visiongate.commands.common import note, waiting

if TYPE_CHECKING:
    from visiongate.batch.item import Source
    from visiongate.batch.job import Summary
    from visiongate.batch.task import Task

INPUT_HELP = "A folder, or any other input of `visiongate batch`: patterns, lists, tables, archives, buckets."


def run_job(
    task: "Task",
    source: "Source",
    client: Client,
    out: Path,
    option: str,
    *,
    overwrite: bool = False,
    timeout_s: float,
) -> "Summary":
    """Ask about what is new, and about what failed before; the answers go to `out`, a folder.

    option: the one that names `out` in the command. However many photos fail, the job goes on: its rows say
    which. Raises what `run` does.
    """
    from visiongate.batch.job import Job, run  # noqa: PLC0415

    job = Job(
        task=task,
        source=source,
        out=str(out),
        clients=[client],
        timeout_s=timeout_s,
        retry_failed=True,
        overwrite=overwrite,
        max_failure_rate=1,
    )
    try:
        with waiting(f"{task.name} {source.name}"):
            summary = run(job)
    except CommandError as error:
        # Jobs call it as `visiongate batch` does.
        raise CommandError(str(error).replace("--out", option)) from error
    if summary.skipped:
        note(
            f"{summary.skipped} photos were done before; {summary.rows} are new, have changed, or had failed."
        )
    return summary

"""Other formats of a job's output, made of its finished Parquet files.

Each has a folder of its own in the job's folder. Its name begins with `_`: readers of Parquet that are given
the whole folder pass by.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from visiongate.batch.formats import coco, jsonl, npy, yolo
from visiongate.batch.formats.folder import new_folder
from visiongate.batch.formats.rows import Job
from visiongate.batch.output import Output
from visiongate.batch.store import Store
from visiongate.batch.tasks import TASK_NAMES
from visiongate.command_error import CommandError


@dataclass(frozen=True, slots=True)
class _Format:
    """What writes a format into an empty folder and says what is there, and the tasks that it fits."""

    write: Callable[[Job, Path], str]
    tasks: tuple[str, ...]
    holds: str


_OBJECTS = ("detect", "segment")
_FORMATS = {
    "coco": _Format(coco.write, _OBJECTS, "objects"),
    "yolo": _Format(yolo.write, _OBJECTS, "objects"),
    "npy": _Format(npy.write, ("embed",), "embeddings"),
    "jsonl": _Format(jsonl.write, TASK_NAMES, "any rows"),
}
FORMAT_NAMES = tuple(_FORMATS)


def _folder(name: str) -> str:
    return f"_{name}"


FORMAT_FOLDERS = frozenset(map(_folder, FORMAT_NAMES))
"""The names, in a job's folder, of those that formats have."""


def check_format(name: str, task: str) -> None:
    """Raise CommandError, with a sentence, if there is no such format, or it cannot hold the task's rows."""
    if name not in _FORMATS:
        raise CommandError(f"there is no format {name!r}: it must be one of {', '.join(FORMAT_NAMES)}")
    format_ = _FORMATS[name]
    if task not in format_.tasks:
        raise CommandError(
            f"the format {name} is for {format_.holds}: it goes with {' and '.join(format_.tasks)}, not with "
            f"{task}"
        )


def write_format(name: str, output: Output, store: Store) -> list[str]:
    """Write the finished rows in a format, in place of what an earlier job wrote. Return sentences to print.

    Inputs that failed are left out, and counted in a sentence; only `jsonl` has them, as any row. Raise
    CommandError if the format cannot hold the rows, or cannot be written: then the earlier one stays.
    """
    job = Job(output)
    check_format(name, job.task)
    folder = _folder(name)
    with new_folder(store, folder) as path:
        about = _FORMATS[name].write(job, path)
    return [f"{store.path(folder)} has {about}"]

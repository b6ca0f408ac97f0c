"""What a job's folder says about the job, so that a resumed job is the same job."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from visiongate.batch.files import is_job_file
from visiongate.batch.formats import FORMAT_FOLDERS
from visiongate.batch.store import Store, is_lock
from visiongate.command_error import CommandError

NAME = "_job.json"
FORMAT = 1
"""Of the folder: files, columns of every job, and manifest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A job: with the same manifest the same inputs have the same answers.

    task and settings: as in `Task`. source: the name of the source. models: for each task of `ListModels`
    that answers, the `variant` and the `fingerprint` of its model. version: of the client that began the job.
    format: of the folder.
    """

    task: str
    settings: Mapping[str, Any]
    source: str
    rows_per_file: int
    models: Mapping[str, Mapping[str, str]]
    version: str
    format: int = FORMAT

    @classmethod
    def load(cls, store: Store) -> Self | None:
        """Return the manifest of a folder, None if it has none. Raise CommandError if it cannot be read."""
        try:
            text = store.read_bytes(NAME)
        except FileNotFoundError:
            return None
        try:
            values = json.loads(text)
            found = int(values["format"])
            if found <= FORMAT:
                return cls(**values)
        except (ValueError, TypeError, KeyError) as error:
            raise CommandError(
                f"{store.path(NAME)} is damaged: give another --out, or --overwrite to begin anew"
            ) from error
        raise CommandError(
            f"{store.name} is of a newer visiongate (format {found}, and this one knows {FORMAT}): update "
            "visiongate, or give another --out"
        )

    def save(self, store: Store) -> None:
        """Write it to a folder."""
        store.write_bytes(NAME, json.dumps(asdict(self), ensure_ascii=False, indent=1).encode())

    def check_same(self, found: "Manifest", folder: str) -> None:
        """Raise CommandError, which names the first difference, if a folder's manifest is of another job.

        Settings have the names that the manifest has: the command's options have others, and Python's callers
        give no options.
        """
        difference = (
            _difference("the task", found.task, self.task)
            or _difference("the input", found.source, self.source)
            or _first_difference("the setting ", found.settings, self.settings)
            or _first_difference("the model of ", found.models, self.models)
            or _difference("the setting rows_per_file", found.rows_per_file, self.rows_per_file)
        )
        if difference:
            raise CommandError(
                f"{folder} holds the output of another job, where {difference}: give another --out, or "
                "--overwrite to do all inputs anew"
            )


def claim(store: Store, manifest: Manifest, *, overwrite: bool, shard_count: int = 1) -> None:
    """Make a folder the job's, or see that it is. It is to be called under the folder's lock.

    With `overwrite` the files of the job that was there are removed first, and the formats made of them.
    Raise CommandError if the folder is another job's, or has files and no manifest: those may be anything.
    """
    if overwrite and shard_count > 1:
        raise CommandError(
            f"--overwrite would remove what the other shards write: remove {store.name}, or give another "
            "--out"
        )
    names = store.names()
    if NAME not in names and not all(map(is_lock, names)):
        raise CommandError(
            f"{store.name} is not empty, and holds no output of visiongate: give --out a new or empty folder"
        )
    if overwrite:
        for name in FORMAT_FOLDERS.intersection(names):
            store.remove_folder(name)
        # The manifest goes last: if this is ended early, the folder can still be overwritten.
        for name in sorted(filter(is_job_file, names), key=lambda name: name == NAME):
            store.remove(name)
    elif (found := Manifest.load(store)) is not None:
        manifest.check_same(found, store.name)
        return
    manifest.save(store)


def _first_difference(prefix: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    for name in dict.fromkeys([*before, *now]):
        found = _difference(f"{prefix}{name}", before.get(name), now.get(name))
        if found:
            return found
    return ""


def _difference(what: str, before: Any, now: Any) -> str:
    if _plain(before) == _plain(now):
        return ""
    return f"{what} is {_spelled(before)}, and here it is {_spelled(now)}"


def _plain(value: Any) -> Any:
    """Return what JSON makes of a value: tuples are lists."""
    return json.loads(json.dumps(value))


def _spelled(value: Any) -> str:
    if isinstance(value, Mapping):
        return " with ".join(f"{name} {value[name] or 'unknown'}" for name in value)
    return "not given" if value is None else json.dumps(value, ensure_ascii=False)

"""Folders of many files in a job's folder, which appear there whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from visiongate.batch.filesystem import open_filesystem
from visiongate.batch.store import Store

_NEW = ".visiongate-new"
"""Before the name of a folder that is being written. The next that is written there takes its place."""


@contextmanager
def new_folder(store: Store, name: str) -> Iterator[Path]:
    """Lend an empty folder of this machine, and make it the store's folder of that name at the end.

    It takes the place of one that is there. After an error the old one stays, in a bucket as far as it was
    not replaced yet. Raise CommandError if it cannot be written.
    """
    filesystem, root = open_filesystem(store.name)
    try:
        if "file" in ([filesystem.protocol] if isinstance(filesystem.protocol, str) else filesystem.protocol):
            with _local(Path(root), name) as path:
                yield path
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.mkdir()
            yield path
            target = f"{root.rstrip('/')}/{name}"
            if filesystem.exists(target):
                filesystem.rm(target, recursive=True)
            # Backwards: what says which files there are, data.yaml, comes last.
            for file in sorted(path.rglob("*"), reverse=True):
                if file.is_file():
                    filesystem.put_file(str(file), f"{target}/{file.relative_to(path).as_posix()}")
    except OSError as error:
        store.fail_writing(name, error)


@contextmanager
def _local(root: Path, name: str) -> Iterator[Path]:
    path, old, target = root / f"{_NEW}{name}", root / f"{_NEW}{name}-old", root / name
    for abandoned in (path, old):
        shutil.rmtree(abandoned, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        yield path
        # Two steps: a folder does not take the place of one that has files.
        if target.exists():
            target.rename(old)
        path.rename(target)
    finally:
        for abandoned in (path, old):
            shutil.rmtree(abandoned, ignore_errors=True)

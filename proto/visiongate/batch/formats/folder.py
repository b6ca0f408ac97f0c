"""Folders of many files in a job's folder, which appear there whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from visiongate.batch.filesystem import open_filesystem, protocols
from visiongate.batch.store import Store

_NEW = ".visiongate-new"
"""Before the name of a folder that is being written. The next that is written there takes its place."""
_UPLOADS = 16


@contextmanager
def new_folder(store: Store, name: str) -> Iterator[Path]:
    """Lend an empty folder of this machine, and make it the store's folder of that name at the end.

    It takes the place of one that is there. After an error the old one stays; in a bucket, which has no
    folders to rename, only if nothing was sent yet. Raise CommandError if it cannot be written.
    """
    filesystem, root = open_filesystem(store.name)
    try:
        if "file" in protocols(filesystem):
            with _local(Path(root), name) as path:
                yield path
            return
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
            store.remove_folder(name)
            _upload(Path(folder), filesystem, f"{root.rstrip('/')}/{name}")
    except OSError as error:
        store.fail_writing(name, error)


@contextmanager
def _local(root: Path, name: str) -> Iterator[Path]:
    path, old, target = root / f"{_NEW}{name}", root / f"{_NEW}{name}-old", root / name
    # A process may have been killed between the two steps.
    _put_back(old, target)
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
        _put_back(old, target)
        for abandoned in (path, old):
            shutil.rmtree(abandoned, ignore_errors=True)


def _put_back(old: Path, target: Path) -> None:
    if old.exists() and not target.exists():
        old.rename(target)


def _upload(folder: Path, filesystem: Any, target: str) -> None:
    """Send the files of a folder. Those at its top, which say what the others are, come last."""
    names = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]

    def send(name: str) -> None:
        filesystem.put_file(str(folder / name), f"{target}/{name}")

    with ThreadPoolExecutor(_UPLOADS) as pool:
        for is_at_top in (False, True):
            # A list, so that errors are raised.
            list(pool.map(send, [name for name in names if ("/" not in name) == is_at_top]))

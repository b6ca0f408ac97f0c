"""Into a model repository: made aside, moved in all at once, one export at a time.

What is made lies outside of the repository, because Triton takes every folder in it for a model, a hidden
one too, and does not start where one is half written. An export that is killed leaves the repository as
it was, but for one moment: a family of several models is moved in model by model, each at a single stroke
where the filesystem can exchange two folders (ext4, XFS, Btrfs, tmpfs and others of Linux).
"""

import ctypes
import errno
import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from export.errors import ExportError, cause

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
# Less than this is a full disk, whatever the library that could not write makes of it.
_NO_ROOM_BYTES = 1 << 20


@contextmanager
def reserved(repository: Path) -> Iterator[None]:
    """Keep other exports out of a repository, which is made where there is none.

    Raises ExportError at once where it cannot be written to. Sweeps what a killed export left; removes
    a folder again that was made in vain.
    """
    is_new = not repository.exists()
    if not is_new and not repository.is_dir():
        raise ExportError(f"{repository} is a file: give a folder with --repository.")
    with _disk_faults(repository):
        repository.mkdir(parents=True, exist_ok=True)
        handle = os.open(repository, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(handle, repository)
        try:
            with _disk_faults(repository):
                _sweep(repository)
                with _staging(repository):
                    pass
            yield
        finally:
            if is_new:
                with suppress(OSError):  # there is something in it
                    repository.rmdir()
    finally:
        os.close(handle)


@contextmanager
def staged(repository: Path) -> Iterator[Path]:
    """A folder to make models in; all of them move into the repository when the block ends well.

    What else lies in a model's folder, such as other versions, stays there. ExportError where the disk
    fails.
    """
    with _disk_faults(repository):
        repository.mkdir(parents=True, exist_ok=True)
        # Twice: whether the disk is full is to be seen before the staging folder is removed.
        with _staging(repository) as staging, _disk_faults(repository):
            yield staging
            with _outside_of_models(staging, repository) as outside:
                _move_in(outside, repository)


def _lock(handle: int, repository: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ExportError(
            f"Another export is writing to {repository}: wait until it has ended, or give another folder "
            "with --repository."
        ) from error
    except OSError:
        pass  # a filesystem without locks


@contextmanager
def _staging(repository: Path) -> Iterator[Path]:
    """A new folder on the repository's filesystem, removed at the end."""
    place = _place(repository)
    with tempfile.TemporaryDirectory(
        dir=place, prefix=_prefix(repository), ignore_cleanup_errors=True
    ) as name:
        yield Path(name)


def _prefix(repository: Path) -> str:
    """How names begin of what is no part of the repository."""
    return f".{repository.resolve().name}.export-"


def _place(repository: Path) -> Path:
    """The folder to stage in: beside the repository.

    Where that is a mount point, or its parent not ours to write to: in a model's folder, of which Triton
    reads only the numbered ones, and in the repository itself while it has no model.
    """
    repository = repository.resolve()
    with suppress(OSError):
        # Not by comparing devices: those of a bind mount are the same, and moving fails.
        handle, probe = tempfile.mkstemp(dir=repository.parent, prefix=_prefix(repository))
        os.close(handle)
        moved = repository / Path(probe).name
        try:
            os.rename(probe, moved)
        except OSError:
            os.unlink(probe)
            raise
        os.unlink(moved)
        return repository.parent
    models = (path for path in sorted(repository.iterdir()) if (path / "config.pbtxt").is_file())
    return next(models, repository)


def _sweep(repository: Path) -> None:
    """Remove what exports that were killed have left, wherever they staged."""
    repository = repository.resolve()
    for folder in (repository.parent, repository, *repository.iterdir()):
        for left in folder.glob(f"{glob.escape(_prefix(repository))}*"):
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()


@contextmanager
def _outside_of_models(staging: Path, repository: Path) -> Iterator[Path]:
    """Where the folder lies in a model's, put it beside the models for a moment.

    A model's folder cannot change places with one inside of it.
    """
    if staging.parent.parent != repository.resolve():
        yield staging
        return
    outside = repository.resolve() / staging.name
    os.rename(staging, outside)
    try:
        yield outside
    finally:
        os.rename(outside, staging)


def _move_in(staging: Path, repository: Path) -> None:
    """Put every model in its place; where one fails, put back those before it."""
    pairs = [(model, repository / model.name) for model in sorted(staging.iterdir())]
    for model, target in pairs:
        if target.is_dir():
            _carry_over(target, model)
    done = []
    try:
        for model, target in pairs:
            _swap(model, target)
            done.append((model, target))
    except BaseException:
        for model, target in reversed(done):
            _swap(model, target)
        raise


def _carry_over(source: Path, target: Path) -> None:
    """Give the new folder of a model what else the old one holds."""
    for item in source.iterdir():
        new = target / item.name
        if new.exists() or item.name.startswith(_prefix(source.parent)):
            continue
        if item.is_dir() and not item.is_symlink():
            shutil.copytree(item, new, symlinks=True, copy_function=_link)
        else:
            _link(item, new)


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # a filesystem without hard links
        shutil.copy2(source, target, follow_symlinks=False)


def _swap(one: Path, other: Path) -> None:
    """Exchange two folders of one filesystem; where only one is there, it moves to the other's place."""
    if not one.exists():
        os.rename(other, one)
    elif not os.path.lexists(other):
        os.rename(one, other)
    elif not _exchange(one, other):
        aside = one.with_name(f"{one.name}.old")
        os.rename(other, aside)
        try:
            os.rename(one, other)
        except BaseException:
            os.rename(aside, other)
            raise
        os.rename(aside, one)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two paths at a single stroke; False where the system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    paths = os.fsencode(one), os.fsencode(other)
    return rename is not None and not rename(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE)


@contextmanager
def _disk_faults(repository: Path) -> Iterator[None]:
    """Inside, what a disk refuses is one sentence: whoever met it, and whatever they made of it."""
    try:
        yield
    except Exception as error:
        full = cause(error, OSError, lambda fault: fault.errno in {errno.ENOSPC, errno.EDQUOT})
        if full is not None or _is_full(repository):
            raise ExportError(
                f"The disk of {repository} is full: make room, or give another folder with --repository."
            ) from error
        if isinstance(error, OSError):
            raise ExportError(
                f"Cannot write to {repository}: {error.strerror or error}; give another folder with "
                "--repository."
            ) from error
        raise


def _is_full(repository: Path) -> bool:
    try:
        return shutil.disk_usage(repository).free < _NO_ROOM_BYTES
    except OSError:
        return False

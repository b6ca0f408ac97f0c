"""How models get into a repository: made aside, moved in all at once, one export at a time.

Models are made outside the repository. Triton takes every folder in a repository for a model, even a hidden
one, and does not start if one is half written. An export that is killed leaves the repository as it was,
except in one short moment: the models of a family move in one after the other. Each moves atomically if the
filesystem can exchange two folders (ext4, XFS, Btrfs, tmpfs and others of Linux).
"""

import ctypes
import errno
import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from export.errors import ExportError, cause

# Triton's other configs of a model: see its option --model-config-name.
_CONFIGS = "configs"
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
# A disk with less free space than this is full, whatever error the library raises that could not write.
_MIN_FREE_BYTES = 1 << 20


@contextmanager
def reserved(repository: Path) -> Iterator[None]:
    """Keep other exports out of a repository. Make it if there is none.

    Raise ExportError at once if the repository cannot be written to. Remove what killed exports have left. At
    the end, remove the folder again if it was made here and is empty.
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
                with suppress(OSError):  # it is not empty
                    repository.rmdir()
    finally:
        os.close(handle)


@contextmanager
def staged(repository: Path, stale_configs: Collection[str] = ()) -> Iterator[Path]:
    """Yield a folder to make models in. All of them move into the repository when the block ends well.

    Other files in a model's folder of the repository, such as other versions, stay there, but for
    `stale_configs` in its folder `configs`. Raise ExportError if the disk fails.
    """
    with _disk_faults(repository):
        repository.mkdir(parents=True, exist_ok=True)
        # A second time: a full disk must be noticed before the staging folder is removed.
        with _staging(repository) as staging, _disk_faults(repository):
            yield staging
            with _outside_of_models(staging, repository) as outside:
                _move_in(outside, repository, stale_configs)


def _lock(handle: int, repository: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ExportError(
            f"Another export is writing to {repository}: wait until it has ended, or give another folder "
            "with --repository."
        ) from error
    except OSError:
        pass  # the filesystem has no locks


@contextmanager
def _staging(repository: Path) -> Iterator[Path]:
    """Yield a new folder on the repository's filesystem, and remove it at the end."""
    place = _place(repository)
    with tempfile.TemporaryDirectory(
        dir=place, prefix=_prefix(repository), ignore_cleanup_errors=True
    ) as name:
        yield Path(name)


def _prefix(repository: Path) -> str:
    """Return how the names of staging folders begin."""
    return f".{repository.resolve().name}.export-"


def _place(repository: Path) -> Path:
    """Return the folder to stage in: the one that holds the repository, if possible.

    If the repository is a mount point, or its parent cannot be written to, it is the folder of a model, where
    Triton reads only the numbered folders. If there is no model yet, it is the repository itself.
    """
    repository = repository.resolve()
    with suppress(OSError):
        # Comparing devices is not enough: those of a bind mount are the same, and yet moving fails.
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
    """Remove what killed exports have left, wherever they staged."""
    repository = repository.resolve()
    for folder in (repository.parent, repository, *repository.iterdir()):
        for left in folder.glob(f"{glob.escape(_prefix(repository))}*"):
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()


@contextmanager
def _outside_of_models(staging: Path, repository: Path) -> Iterator[Path]:
    """Yield the staging folder, outside of all models.

    If it lies in a model's folder, it moves beside the models for a moment: a model's folder cannot change
    places with one inside it.
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


def _move_in(staging: Path, repository: Path, stale_configs: Collection[str]) -> None:
    """Put every model in its place. If one fails, put back those before it."""
    pairs = [(model, repository / model.name) for model in sorted(staging.iterdir())]
    for model, target in pairs:
        if target.is_dir():
            _carry_over(target, model, stale_configs)
    done = []
    try:
        for model, target in pairs:
            _swap(model, target)
            done.append((model, target))
    except BaseException:
        for model, target in reversed(done):
            _swap(model, target)
        raise


def _carry_over(source: Path, target: Path, stale_configs: Collection[str]) -> None:
    """Give the new folder of a model the other files of the old one."""
    for item in source.iterdir():
        new = target / item.name
        if item.name == _CONFIGS and item.is_dir():
            for config in item.iterdir():
                if config.name not in stale_configs and not (new / config.name).exists():
                    new.mkdir(exist_ok=True)
                    _link(config, new / config.name)
        elif new.exists() or item.name.startswith(_prefix(source.parent)):
            continue
        elif item.is_dir() and not item.is_symlink():
            shutil.copytree(item, new, symlinks=True, copy_function=_link)
        else:
            _link(item, new)


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # the filesystem has no hard links
        shutil.copy2(source, target, follow_symlinks=False)


def _swap(path: Path, other: Path) -> None:
    """Exchange two folders of one filesystem. If only one exists, it moves to the place of the other."""
    if not path.exists():
        os.rename(other, path)
    elif not os.path.lexists(other):
        os.rename(path, other)
    elif not _exchange(path, other):
        aside = path.with_name(f"{path.name}.old")
        os.rename(other, aside)
        try:
            os.rename(path, other)
        except BaseException:
            os.rename(aside, other)
            raise
        os.rename(aside, path)


def _exchange(path: Path, other: Path) -> bool:
    """Exchange two paths atomically. Return False if the system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    paths = os.fsencode(path), os.fsencode(other)
    return rename is not None and not rename(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE)


@contextmanager
def _disk_faults(repository: Path) -> Iterator[None]:
    """Turn what a disk refuses into one sentence, whatever error the library in between made of it."""
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
        return shutil.disk_usage(repository).free < _MIN_FREE_BYTES
    except OSError:
        return False

"""The folder that a job writes to, on this machine or in a bucket. Files appear in it whole or not at all."""

import contextlib
import errno
import os
import re
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa

from visiongate.batch.filesystem import is_url, open_filesystem, protocols
from visiongate.batch.locks import flush_to_disk, is_locked, new_temporary, open_locked, remove_abandoned
from visiongate.command_error import CommandError

_PIECE = 1 << 23
_LOCK = re.compile(r"_lock-(\d+)-of-(\d+)")


class Store(ABC):
    """A folder, of which the files are named. What folders in it hold, it does not know.

    name: the folder as the user named it. is_local: whether files are read without waiting. All methods raise
    CommandError, with a sentence that names the file, if the file system does not do what is asked.
    """

    name: str
    is_local: bool

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of all that is in the folder, sorted, without hidden ones; [] without a folder."""

    @abstractmethod
    def put(self, name: str, local_path: str | os.PathLike[str]) -> None:
        """Make a file of this machine the folder's file of that name, whole, in place of one that is there.

        A file that `temporary` has lent for the name is moved, and others are copied.
        """

    @abstractmethod
    def open_input(self, name: str) -> Any:
        """Return a file to read at any place, as pyarrow takes it: a context manager.

        Raise OSError if it cannot be opened.
        """

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file; if it is not there, do nothing."""

    @abstractmethod
    def remove_folder(self, name: str) -> None:
        """Remove a folder in this one, with all that it holds; if it is not there, do nothing."""

    @abstractmethod
    def _lock(self, shard: tuple[int, int]) -> AbstractContextManager[bool]:
        """Hold the lock of a shard. Give False if another process has it, or that of a shard of another n."""

    @abstractmethod
    def _temporary_folder(self) -> Path:
        """Return the folder of this machine in which files are written before they are put here."""

    def path(self, name: str) -> str:
        """Return what people call a file of this folder."""
        return f"{self.name.rstrip('/')}/{name}"

    def read_bytes(self, name: str) -> bytes:
        """Return the contents of a small file. Raise FileNotFoundError if it is not there."""
        try:
            with self.open_input(name) as file:
                data: bytes = file.read()
                return data
        except FileNotFoundError:
            raise
        except OSError as error:
            raise CommandError(f"{self.path(name)} cannot be read: {reason(error)}") from error

    def write_bytes(self, name: str, data: bytes) -> None:
        """Make a small file of that name, whole, in place of one that is there."""
        with self.temporary(name) as path:
            try:
                path.write_bytes(data)
            except OSError as error:
                self.fail_writing(name, error)
            self.put(name, path)

    @contextmanager
    def temporary(self, name: str) -> Iterator[Path]:
        """Lend an empty file of this machine that `put` can make the folder's file of that name.

        It is removed at the end. That of a process that was killed is removed when `lock` is next taken.
        """
        folder = self._temporary_folder()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path, lock = new_temporary(folder, name)
        except OSError as error:
            self.fail_writing(name, error)
        try:
            yield path
        finally:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            os.close(lock)

    @contextmanager
    def lock(self, shard: tuple[int, int] = (0, 1)) -> Iterator[None]:
        """Keep other processes of this machine from doing the same shard, or one that overlaps it.

        shard: (i, n), as in a job. Shards of another n would write the same files. Raise CommandError if
        there is such a process now. In buckets, and on file systems without locks, nothing is kept.
        """
        with self._lock(shard) as is_held:
            if not is_held:
                raise CommandError(
                    f"another process writes to {self.name} now: let it finish, or give another --out"
                )
            remove_abandoned(self._temporary_folder())
            yield

    def fail_writing(self, name: str, error: Exception) -> NoReturn:
        """Raise CommandError that a file could not be written."""
        raise CommandError(f"{self.path(name)} cannot be written: {reason(error)}") from error


def open_store(out: str) -> Store:
    """Return the folder of a path or an address. It need not be there yet.

    Raise CommandError if it is a file, or an address that nothing here can open.
    """
    if not out:
        raise CommandError("--out is empty: give a folder, or an address such as s3://bucket/folder")
    if not is_url(out):
        return _LocalStore(out, Path(out))
    try:
        filesystem, path = open_filesystem(out)
    except ValueError as error:
        raise CommandError(f"--out {reason(error)}") from error
    except Exception as error:
        raise CommandError(f"--out {out} cannot be opened: {reason(error)}") from error
    if "file" in protocols(filesystem):
        return _LocalStore(out, Path(path))
    return _RemoteStore(out, filesystem, path.rstrip("/"))


def is_lock(name: str) -> bool:
    """Return whether a name is that of a file which a process locks as long as it works on a shard."""
    return _LOCK.fullmatch(name) is not None


def reason(error: BaseException) -> str:
    """Return what an error of a file system says, on one line."""
    if isinstance(error, FileNotFoundError):
        # Some file systems say its name alone.
        return os.strerror(errno.ENOENT)
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    return re.sub(r"\s+", " ", str(error)).strip() or type(error).__name__


class _LocalStore(Store):
    is_local = True

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._folder = folder
        if folder.exists() and not folder.is_dir():
            raise CommandError(f"--out {name} is a file: give a folder")

    def names(self) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self._folder) if not name.startswith("."))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CommandError(f"{self.name} cannot be listed: {reason(error)}") from error

    def put(self, name: str, local_path: str | os.PathLike[str]) -> None:
        local_path = Path(local_path)
        if local_path.parent != self._folder:
            with self.temporary(name) as copy:
                try:
                    shutil.copyfile(local_path, copy)
                except OSError as error:
                    self.fail_writing(name, error)
                self.put(name, copy)
            return
        try:
            flush_to_disk(local_path)
            os.replace(local_path, self._folder / name)
            flush_to_disk(self._folder)
        except OSError as error:
            self.fail_writing(name, error)

    def open_input(self, name: str) -> Any:
        return pa.OSFile(os.fsencode(self._folder / name))

    def remove(self, name: str) -> None:
        try:
            (self._folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise CommandError(f"{self.path(name)} cannot be removed: {reason(error)}") from error

    def remove_folder(self, name: str) -> None:
        try:
            shutil.rmtree(self._folder / name)
        except FileNotFoundError:
            return
        except OSError as error:
            raise CommandError(f"{self.path(name)} cannot be removed: {reason(error)}") from error

    def _temporary_folder(self) -> Path:
        return self._folder

    @contextmanager
    def _lock(self, shard: tuple[int, int]) -> Iterator[bool]:
        name = f"_lock-{shard[0]}-of-{shard[1]}"
        path = self._folder / name
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = open_locked(path)
        except BlockingIOError:
            yield False
            return
        except OSError as error:
            raise CommandError(f"--out {self.name} cannot be written: {reason(error)}") from error
        try:
            # With the own lock held: of two that begin at a time, at least one sees the other.
            yield not any(
                is_locked(self._folder / other)
                for other in self.names()
                if (match := _LOCK.fullmatch(other)) and int(match[2]) != shard[1]
            )
        finally:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            os.close(file)


class _RemoteStore(Store):
    is_local = False

    def __init__(self, name: str, filesystem: Any, root: str) -> None:
        self.name = name
        self._filesystem = filesystem
        self._root = root
        # A bucket has no folders to make; pyarrow would leave an empty object for each.
        self._has_folders = protocols(filesystem).isdisjoint({"s3", "gcs", "gs"})
        self._arrow = getattr(filesystem, "fs", None) if not self._has_folders else None

    def names(self) -> list[str]:
        # Else the lists of some file systems are those of before.
        self._filesystem.invalidate_cache()
        try:
            entries = self._filesystem.ls(self._root, detail=False)
        except FileNotFoundError:
            return []
        except Exception as error:
            raise CommandError(f"{self.name} cannot be listed: {reason(error)}") from error
        names = (
            entry.rstrip("/").rpartition("/")[2]
            for entry in entries
            if entry.strip("/") != self._root.strip("/")
        )
        return sorted(name for name in names if not name.startswith("."))

    def put(self, name: str, local_path: str | os.PathLike[str]) -> None:
        target = f"{self._root}/{name}"
        try:
            if self._has_folders:
                self._filesystem.makedirs(self._root, exist_ok=True)
            with open(local_path, "rb") as source, self._output(target) as sink:
                try:
                    while piece := source.read(_PIECE):
                        sink.write(piece)
                except BaseException:
                    # Closing puts what was written there, as if it were all.
                    sink.close()
                    self._filesystem.rm_file(target)
                    raise
        except Exception as error:
            self.fail_writing(name, error)

    def _output(self, path: str) -> Any:
        return self._arrow.open_output_stream(path) if self._arrow else self._filesystem.open(path, "wb")

    def open_input(self, name: str) -> Any:
        path = f"{self._root}/{name}"
        try:
            return self._arrow.open_input_file(path) if self._arrow else self._filesystem.open(path, "rb")
        except OSError:
            raise
        except Exception as error:
            raise CommandError(f"{self.path(name)} cannot be read: {reason(error)}") from error

    def remove(self, name: str) -> None:
        try:
            self._filesystem.rm_file(f"{self._root}/{name}")
        except FileNotFoundError:
            return
        except Exception as error:
            raise CommandError(f"{self.path(name)} cannot be removed: {reason(error)}") from error

    def remove_folder(self, name: str) -> None:
        path = f"{self._root}/{name}"
        try:
            self._filesystem.invalidate_cache()
            if self._filesystem.exists(path):
                self._filesystem.rm(path, recursive=True)
        except Exception as error:
            raise CommandError(f"{self.path(name)} cannot be removed: {reason(error)}") from error

    def _temporary_folder(self) -> Path:
        return Path(tempfile.gettempdir())

    @contextmanager
    def _lock(self, shard: tuple[int, int]) -> Iterator[bool]:
        yield True

"""Where files are: on this machine, or in a file system of fsspec, such as a bucket."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from visiongate.batch.filesystem import is_url, open_filesystem, scheme_of
from visiongate.operations.image_file import check_length, read_some

# How pyarrow says that a bucket's key is wrong, or has not the right.
_DENIED = re.compile(r"ACCESS_DENIED|ACCESS_KEY|SIGNATURE|UNAUTHORIZED|HTTP status 40[13]", re.IGNORECASE)


class Place(Protocol):
    """Where files are. Paths in it have `/` between folders. Its methods may be called from any thread.

    key: what the places of two texts have in common if a path of one means the same in the other.
    """

    key: str

    def address(self, path: str) -> str:
        """Return what people call a path: absolute, the same from wherever it is said."""
        ...

    def kind(self, path: str) -> str:
        """Return "folder" or "file", or "" if nothing is there. Raise OSError if that cannot be told."""
        ...

    def entries(self, folder: str) -> list[tuple[str, str]]:
        """Return names in a folder, those of folders with `/` at the end, and versions where they are known.

        They are in the order of the bytes of whole paths. Raises OSError.
        """
        ...

    def version(self, path: str) -> str:
        """Return what `Item.version` says; "" if the file is gone. In a bucket this is a request."""
        ...

    def identity(self, folder: str) -> object:
        """Return what tells a folder from others, through links too; None where there are no links."""
        ...

    def parents(self, folder: str) -> list[str]:
        """Return the folder without links, and those that it is in; none where there are no links."""
        ...

    def open(self, path: str) -> IO[bytes]:
        """Open a file to read. Raise OSError, whose text is a sentence."""
        ...


def read(place: Place, path: str) -> bytes:
    """Return the bytes of an image file. Raise OSError or ValueError, whose text is a sentence."""
    with place.open(path) as file:
        try:
            data = read_some(file)
        except OSError as error:
            raise cannot_read(place.address(path), error) from error
    return checked(data, place.address(path))


def checked(data: bytes | None, name: str) -> bytes:
    """Return the bytes of a file, of which there are some and not too many. Raise ValueError otherwise."""
    if not data:
        raise ValueError(f"{name} is empty")
    check_length(len(data), name)
    return data


def cannot_read(name: str, error: OSError, what: str = "file") -> OSError:
    """Return an error whose text is a sentence about a file or folder of this name.

    Its kind says whether the file is not there, may not be read, or cannot be reached now (ConnectionError).
    """
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(f"there is no {what} {name}")
    # pyarrow's errors have no `strerror`, but long texts of several sentences.
    reason = (error.strerror or str(error)).partition(" error_info=")[0].strip().rstrip(".")
    kind = type(error)
    if kind is OSError and error.errno is None:
        kind = PermissionError if _DENIED.search(reason) else ConnectionError
    return kind(f"{name} cannot be read: {reason[:1].lower()}{reason[1:]}")


def is_connection(place: Place, error: Exception) -> bool:
    """Return whether an error is not of a file, but of the way to all of them: a job stops for now."""
    of_a_file = FileNotFoundError, PermissionError, ValueError
    return isinstance(error, OSError) and not isinstance(place, Local) and not isinstance(error, of_a_file)


def place_of(text: str) -> tuple[Place, str]:
    """Return the place of a path or an address, and its path there. Raise ValueError as `open_filesystem`."""
    if not is_url(text):
        return Local(), os.path.abspath(text)
    filesystem, path = open_filesystem(text)
    if scheme_of(text) in ("file", "local"):
        return Local(), os.path.abspath(path)
    return Remote(filesystem, text, path), path


def _order(entry: tuple[str, str]) -> bytes:
    return os.fsencode(entry[0])


class Local:
    """The files of this machine."""

    key = ""

    def address(self, path: str) -> str:
        return path

    def kind(self, path: str) -> str:
        try:
            return "folder" if os.path.isdir(path) else "file" if os.path.lexists(path) else ""
        except ValueError:
            return ""

    def entries(self, folder: str) -> list[tuple[str, str]]:
        try:
            with os.scandir(folder) as found:
                names = [(f"{entry.name}/" if _is_folder(entry) else entry.name, "") for entry in found]
        except OSError as error:
            raise cannot_read(folder, error, "file or folder") from error
        names.sort(key=_order)
        return names

    def version(self, path: str) -> str:
        try:
            found = os.stat(path)
        except (OSError, ValueError):
            return ""
        return f"{found.st_size}-{found.st_mtime_ns}"

    def identity(self, folder: str) -> object:
        try:
            found = os.stat(folder)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def parents(self, folder: str) -> list[str]:
        path = Path(os.path.realpath(folder))
        return [str(path), *map(str, path.parents)]

    def open(self, path: str) -> IO[bytes]:
        try:
            return open(path, "rb", opener=_opener)
        except OSError as error:
            raise cannot_read(path, error) from error
        except ValueError as error:
            raise ValueError(f"{path!r} is no path: {error}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _opener(path: str, flags: int) -> int:
    # A named pipe that nobody writes to is empty then, and holds nothing up.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


_TAGS: Sequence[str] = ("ETag", "etag", "md5Hash", "content_md5")
_TIMES: Sequence[str] = ("mtime", "LastModified", "last_modified", "updated", "created")


class Remote:
    """The files of a file system of fsspec, opened by an address."""

    def __init__(self, filesystem: Any, address: str, path: str) -> None:
        self._filesystem = filesystem
        # What is before the path in the address.
        self.key = f"{scheme_of(address)}://{path.split('/', 1)[0]}" if path else address
        self._before = f"{scheme_of(address)}://"

    def address(self, path: str) -> str:
        return self._before + path.lstrip("/")

    def kind(self, path: str) -> str:
        try:
            return "folder" if self._filesystem.info(path)["type"] == "directory" else "file"
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise cannot_read(self.address(path), error) from error

    def entries(self, folder: str) -> list[tuple[str, str]]:
        try:
            found = self._filesystem.ls(folder, detail=True)
        except OSError as error:
            raise cannot_read(self.address(folder), error, "file or folder") from error
        names = []
        for entry in found:
            path = entry["name"].rstrip("/")
            # Some list a folder's own marker in it.
            if path.strip("/") == folder.strip("/"):
                continue
            name = path.rpartition("/")[2]
            is_folder = entry["type"] == "directory"
            names.append((f"{name}/", "") if is_folder else (name, _version(entry)))
        names.sort(key=_order)
        return names

    def version(self, path: str) -> str:
        try:
            return _version(self._filesystem.info(path))
        except OSError:
            return ""

    def identity(self, folder: str) -> object:
        return None

    def parents(self, folder: str) -> list[str]:
        return []

    def open(self, path: str) -> IO[bytes]:
        try:
            return self._filesystem.open(path, "rb")  # type: ignore[no-any-return]
        except OSError as error:
            raise cannot_read(self.address(path), error) from error


def _version(entry: dict[str, Any]) -> str:
    tag = next((str(entry[name]).strip('"') for name in _TAGS if entry.get(name)), "")
    time = next((entry[name] for name in _TIMES if entry.get(name)), "")
    if hasattr(time, "timestamp"):
        time = f"{time.timestamp():.6f}"
    return f"{entry.get('size')}-{tag or time}"

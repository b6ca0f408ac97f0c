"""Files that are locked as long as they are written, so that those of dead processes can be told."""

import contextlib
import errno
import os
import platform
import re
import secrets
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no such locks: there a job is not kept from its own second start.
    fcntl = None  # type: ignore[assignment]

# With this machine's name: some network mounts keep locks from other machines.
_TEMPORARY = f".visiongate-temporary-{re.sub(r'[^A-Za-z0-9.-]', '', platform.node())}-"
# What file systems without locks answer, such as some network mounts.
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


def new_temporary(folder: Path, name: str) -> tuple[Path, int]:
    """Make a file that is locked as long as the second value is open."""
    while True:
        path = folder / f"{_TEMPORARY}{secrets.token_hex(6)}-{name}"
        with contextlib.suppress(BlockingIOError):
            return path, open_locked(path)


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary files of this machine's processes that are no more: those that are not locked."""
    if fcntl is None:
        return
    for path in folder.glob(f"{_TEMPORARY}*"):
        # Another user's file stays, and one of which nothing tells whether it is locked.
        with contextlib.suppress(OSError):
            file = open_locked(path, is_new=False)
            path.unlink(missing_ok=True)
            os.close(file)


def open_locked(path: Path, is_new: bool = True) -> int:
    """Open a file, and lock it until it is closed. Raise BlockingIOError if another has the lock.

    A new file is made, and is not locked where the file system has no locks; otherwise raise OSError then.
    """
    while True:
        file = os.open(path, os.O_RDWR | (os.O_CREAT if is_new else 0), 0o666)
        try:
            if fcntl is not None:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    if error.errno not in _NO_LOCKS or not is_new:
                        raise
            # Whoever had the lock may have removed the file: then another process can lock a new one.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), os.stat(path)):
                    return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)
        if not is_new:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


def is_locked(path: Path) -> bool:
    """Return whether a process has locked a file; False where nothing tells it. Several may ask at a time."""
    if fcntl is None:
        return False
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(file)
    return False


def flush_to_disk(path: Path) -> None:
    """Wait until a file or folder is on the disk: after a power cut a renamed file could be empty."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as error:
        # Some file systems cannot do this for folders.
        if error.errno not in _NO_LOCKS:
            raise
    finally:
        os.close(file)

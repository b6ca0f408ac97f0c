"""Shared memory, through which Triton's processes exchange tensors: what a run needs of it, and leaves."""

import fcntl
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from gateway.embedded.error import EmbeddedTritonError

FOLDER = Path("/dev/shm")  # noqa: S108 - the kernel's name for it
# A process of a model takes 1 MiB before its first request.
_NEEDED, _ADVISED = 16 << 20, 256 << 20
_ENLARGE = "for a container --shm-size=1g, in Kubernetes an emptyDir of medium Memory mounted there"


def check(progress: Callable[[str], None]) -> None:
    """Raise an error that says what to do where there is too little for Triton; warn where it is tight."""
    try:
        size = os.statvfs(FOLDER)
    except OSError as error:
        raise _unusable(error) from error
    total, free = (blocks * size.f_frsize for blocks in (size.f_blocks, size.f_bavail))
    if free < _NEEDED:
        raise EmbeddedTritonError(
            f"{FOLDER} has {free >> 20} MiB free, too little for Triton: make it larger ({_ENLARGE})"
        )
    if total < _ADVISED:
        progress(f"{FOLDER} is under {_ADVISED >> 20} MiB: large batches may fail ({_ENLARGE})")


def claim() -> tuple[int, str]:
    """Return a new prefix for a run's shared memory, and the locked file that says that the run is alive."""
    try:
        while True:
            prefix = f"visiongate_{os.getpid()}_{secrets.token_hex(4)}"
            file = os.open(FOLDER / f"{prefix}.lock", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                continue
            if os.fstat(file).st_nlink:
                return file, prefix
            os.close(file)  # swept between its creation and the lock
    except OSError as error:
        raise _unusable(error) from error


def sweep() -> None:
    """Remove the shared memory of runs of which no process is left, such as those killed with SIGKILL.

    A run's every process holds a lock on its file, so neither a reused process id nor another container
    that shares the memory can be mistaken for it.
    """
    for path in FOLDER.glob("visiongate_*.lock"):
        try:
            file = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:  # gone by now, or another user's
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for left in FOLDER.glob(f"{path.stem}*"):
                if left != path:
                    left.unlink(missing_ok=True)
            path.unlink(missing_ok=True)  # last: without it nobody would find the rest
        except OSError:  # locked: alive
            continue
        finally:
            os.close(file)


def _unusable(error: OSError) -> EmbeddedTritonError:
    return EmbeddedTritonError(
        f"{FOLDER}, through which Triton's processes exchange tensors, cannot be used ({error.strerror}): "
        f"let it be writable ({_ENLARGE})"
    )

"""The shared memory through which Triton's processes exchange tensors: what a run needs and leaves behind."""

import fcntl
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from gateway.embedded.error import EmbeddedTritonError

FOLDER = Path("/dev/shm")  # noqa: S108 - the kernel's folder, not a temporary file
# In bytes. A process of a model takes 1 MiB before its first request.
_MIN_FREE, _ADVISED_TOTAL = 16 << 20, 256 << 20
_HOW_TO_ENLARGE = "for a container --shm-size=1g, in Kubernetes an emptyDir of medium Memory mounted there"


def check(progress: Callable[[str], None]) -> None:
    """Raise an EmbeddedTritonError that says what to do if there is too little; warn if there is little."""
    try:
        size = os.statvfs(FOLDER)
    except OSError as error:
        raise _unusable(error) from error
    total, free = (blocks * size.f_frsize for blocks in (size.f_blocks, size.f_bavail))
    if free < _MIN_FREE:
        raise EmbeddedTritonError(
            f"{FOLDER} has {free >> 20} MiB free, too little for Triton: make it larger ({_HOW_TO_ENLARGE})"
        )
    if total < _ADVISED_TOTAL:
        progress(f"{FOLDER} is under {_ADVISED_TOTAL >> 20} MiB: large batches may fail ({_HOW_TO_ENLARGE})")


def claim() -> tuple[int, str]:
    """Return a locked file, which marks a run as alive, and the prefix of the names of its shared memory."""
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
            os.close(file)  # `sweep` removed the file before it was locked
    except OSError as error:
        raise _unusable(error) from error


def sweep() -> None:
    """Remove the shared memory of runs that have no process left, such as those killed with SIGKILL.

    Every process of a run holds a lock on the run's file. So neither a reused process id nor another
    container that shares the memory can be mistaken for it.
    """
    for path in FOLDER.glob("visiongate_*.lock"):
        try:
            file = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:  # already removed, or another user's
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for leftover in FOLDER.glob(f"{path.stem}*"):
                if leftover != path:
                    leftover.unlink(missing_ok=True)
            path.unlink(missing_ok=True)  # last: the others are found by it
        except OSError:  # locked: the run is alive
            continue
        finally:
            os.close(file)


def _unusable(error: OSError) -> EmbeddedTritonError:
    return EmbeddedTritonError(
        f"{FOLDER}, through which Triton's processes exchange tensors, cannot be used ({error.strerror}): "
        f"make it writable ({_HOW_TO_ENLARGE})"
    )

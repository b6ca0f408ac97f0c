"""Tensors that lie in shared memory, from where Triton servers on this host read them: nothing is sent.

They all lie in one file that has its place in memory only once it is written. Each server maps it once. It is
locked while its process lives: by that the next process finds what one that was killed left behind.
"""

import contextlib
import errno
import fcntl
import logging
import mmap
import os
import re
import secrets
import threading
import weakref
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

FOLDER = Path("/dev/shm")  # noqa: S108 - the kernel's folder, not a temporary file
_NAME = re.compile(r"visiongate_tensors_\d+_[0-9a-f]{16}")
_PAGE = mmap.PAGESIZE


class SharedTensors:
    """Room for tensors that are sent again and again. `put` and `close` may run in any thread.

    The room of tensors is free again once nobody has them any more. A server may then still read them for a
    request that was cancelled, and whose answer nobody gets: that is harmless, since nothing but such tensors
    is put there, the file never shrinks, and servers write nothing into it.

    readers: the names of the servers that read it. While there are none, nothing is put there.

    Raises OSError if there is no shared memory.
    """

    def __init__(self, size: int) -> None:
        _sweep()
        self.name = f"visiongate_tensors_{os.getpid()}_{secrets.token_hex(8)}"
        self.size = -(-size // _PAGE) * _PAGE
        self._path = FOLDER / self.name
        # It has its name only once it is locked: another process may sweep.
        unnamed = self._path.with_name(f".{self.name}")
        self._file = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        weakref.finalize(self, os.close, self._file)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.truncate(self._file, self.size)
            self._memory = mmap.mmap(self._file, self.size)
            unnamed.rename(self._path)
        except BaseException:
            unnamed.unlink()
            raise
        self._address = np.frombuffer(self._memory, np.uint8).__array_interface__["data"][0]
        self._lock = threading.Lock()
        self._free = [(0, self.size)]
        # Rooms of tensors that are gone. Whoever drops the last reference may hold the lock.
        self._given_back: deque[tuple[int, int]] = deque()
        # What is before it has memory, and keeps it.
        self._allocated = 0
        self._has_told = False
        self.readers: set[str] = set()

    def close(self) -> None:
        """Remove the file. Tensors stay as they are as long as somebody has them."""
        self._path.unlink(missing_ok=True)

    def put(self, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the tensors as they lie in shared memory; unchanged if it is full, or has no reader."""
        if not self.readers:
            return dict(tensors)
        sizes = {name: -(-tensor.nbytes // _PAGE) * _PAGE for name, tensor in tensors.items()}
        size = sum(sizes.values())
        start = self._take(size)
        if start is None:
            return dict(tensors)
        try:
            self._allocate(start + size)
        except OSError as error:
            self._given_back.append((start, start + size))
            if not self._has_told:
                self._has_told = True
                logger.warning("%s is full: tensors are sent to Triton (%s)", FOLDER, error.strerror)
            return dict(tensors)
        room = np.frombuffer(self._memory, np.uint8, size, start)
        # The tensors' arrays refer to this one.
        weakref.finalize(room, self._given_back.append, (start, start + size)).atexit = False
        placed, at = {}, 0
        for name, tensor in tensors.items():
            copy = room[at : at + tensor.nbytes].view(tensor.dtype).reshape(tensor.shape)
            np.copyto(copy, tensor)
            copy.flags.writeable = False
            placed[name] = copy
            at += sizes[name]
        return placed

    def _allocate(self, end: int) -> None:
        """Have the kernel give memory up to there. Writing where none is left would kill the process."""
        with self._lock:
            size = end - self._allocated
            if size <= 0:
                return
            whole = os.fstatvfs(self._file)
            if whole.f_bavail * whole.f_frsize - size < whole.f_blocks * whole.f_frsize // 2:
                raise OSError(errno.ENOSPC, "half of it is left to Triton")
            os.posix_fallocate(self._file, self._allocated, size)
            self._allocated = end

    def offset(self, tensor: NDArray[Any]) -> int | None:
        """Return where in shared memory a tensor lies, if it does."""
        offset = tensor.__array_interface__["data"][0] - self._address
        return offset if 0 <= offset < self.size and tensor.flags.c_contiguous and tensor.nbytes else None

    def _take(self, size: int) -> int | None:
        """Return the start of the first room that is large enough."""
        with self._lock:
            while self._given_back:
                self._free.append(self._given_back.popleft())
            joined: list[tuple[int, int]] = []
            for start, end in sorted(self._free):
                if joined and joined[-1][1] == start:
                    start = joined.pop()[0]  # noqa: PLW2901
                joined.append((start, end))
            self._free = joined
            for index, (start, end) in enumerate(joined):
                if size <= end - start:
                    joined[index] = start + size, end
                    return start
            return None


def is_left(name: str) -> bool:
    """Return whether that is the name of such a file that its process, or a later one, has removed."""
    return bool(_NAME.fullmatch(name)) and not (FOLDER / name).exists()


def _sweep() -> None:
    """Remove the files of processes that live no more, such as those killed with SIGKILL."""
    for path in FOLDER.glob("visiongate_tensors_*"):
        # Locked: its process lives. Not to be opened: another user's.
        with contextlib.suppress(OSError):
            file = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
            try:
                if _NAME.fullmatch(path.name) and os.fstat(file).st_uid == os.geteuid():
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
            finally:
                os.close(file)

"""What a run of Triton takes of this machine, by which it is found once the run is over.

That is shared memory, through which Triton's processes exchange tensors, and a folder for temporary files.
Both have the run's name. A folder of that name in each place marks the run as alive: every process of the run
holds a lock on it. So neither a reused process id nor another container that shares the place can be mistaken
for it.
"""

import contextlib
import fcntl
import os
import re
import secrets
import select
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.embedded import shared_memory
from gateway.embedded.cache_folder import cache_folder, is_plain
from gateway.embedded.error import EmbeddedTritonError
from gateway.embedded.supervisor import remove

_POLL_S = 0.05
_END_S = 1.0
# As the kernel has it, which keeps 15 characters of a name.
_MODEL_PROCESS = "triton_python_backend_stub"[:15]
_NAME = re.compile(r"visiongate_\d+_[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class Run:
    """A run's name, its marks, and the locks on these, which its processes must inherit.

    Shared memory of the run has a name that begins with the run's. Its temporary files are in `folder`.
    """

    name: str
    memory: Path
    folder: Path
    locks: tuple[int, int]


@contextmanager
def claim() -> Iterator[Run]:
    """Lend a new run to the code that starts its processes. If that fails, nothing of the run is left."""
    places = shared_memory.FOLDER, _temporary_folder()
    name = f"visiongate_{os.getpid()}_{secrets.token_hex(4)}"
    memory, folder = (place / name for place in places)
    with contextlib.ExitStack() as stack:
        try:
            lock = _mark(memory)
        except OSError as error:
            raise shared_memory.unusable(error) from error
        stack.callback(os.close, lock)
        try:
            locks = lock, _mark(folder)
            stack.callback(os.close, locks[1])
            yield Run(name, memory, folder, locks)
        except BaseException as error:
            remove(memory)
            remove(folder)
            if isinstance(error, OSError):
                raise EmbeddedTritonError(f"Triton cannot be started: {error}") from error
            raise


def end(run: Run, timeout_s: float) -> None:
    """End a run whose supervisor has died, and remove what it leaves. Its Triton is about to die too."""
    deadline = time.monotonic() + timeout_s
    while run.folder.exists() and time.monotonic() < deadline:
        sweep()
        time.sleep(_POLL_S)


def sweep() -> None:
    """Remove what runs have left that have no Triton any more, such as those killed with SIGKILL."""
    _end_orphans()
    for place in (shared_memory.FOLDER, _temporary_folder()):
        for mark in place.glob("visiongate_*"):
            if _NAME.fullmatch(mark.name):
                _sweep(mark)


def _end_orphans() -> None:
    """Kill the processes of models that work in the folder of a run, while their parent does not.

    Such a process waits for its Triton for ever if that was killed while it started.
    """
    place = _temporary_folder()
    for process in Path("/proc").glob("[0-9]*"):
        # It may end meanwhile.
        with contextlib.suppress(OSError), _handle(int(process.name)) as handle:
            folder = _folder_of(process.name)
            is_of_run = Path(folder).parent == place and _NAME.fullmatch(Path(folder).name)
            if is_of_run and (process / "comm").read_text().strip() == _MODEL_PROCESS:
                parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
                if _folder_of(parent) != folder:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    select.select([handle], [], [], _END_S)


@contextmanager
def _handle(pid: int) -> Iterator[int]:
    """Lend what stays this process, even if it ends and another one gets its number."""
    handle = os.pidfd_open(pid)
    try:
        yield handle
    finally:
        os.close(handle)


def _folder_of(pid: str) -> str:
    """Return the folder that a process works in; empty if it is another user's, or has ended."""
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return ""


def _sweep(mark: Path) -> None:
    try:
        lock = os.open(mark, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # already removed, or another user's
        return
    try:
        # What is not this user's own may have been put there to make root remove something.
        if os.fstat(lock).st_uid == os.geteuid():
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(mark)
    except OSError:  # locked: the run is alive
        pass
    finally:
        os.close(lock)


def _mark(path: Path) -> int:
    """Make a folder and return a lock on it. It has its name only once it is locked: `sweep` may look."""
    unnamed = path.with_name(f".{path.name}")
    unnamed.mkdir(0o700)
    lock = os.open(unnamed, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unnamed.rename(path)
    except OSError:
        os.close(lock)
        unnamed.rmdir()
        raise
    return lock


def _temporary_folder() -> Path:
    """Return where temporary files go. Triton's shell commands do not bear blanks and quotes in it."""
    folder = Path(tempfile.gettempdir())
    return folder if is_plain(folder) else cache_folder()

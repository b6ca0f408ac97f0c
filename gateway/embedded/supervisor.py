"""Run a command that cannot outlive the process that asks for it.

A separate program that uses the standard library alone:
`python -I -S supervisor.py PARENT GRACE MEMORY FOLDER COMMAND…`.
It ends the command, and every process that the command started, in three cases:

- A SIGTERM comes: the command has GRACE seconds to finish. A second SIGTERM ends it immediately.
- The process PARENT has died, in whatever way.
- A child process of the command has died, and the command ignores it. Triton calls a model ready although its
  process was killed, and during its start waits for such a process forever.

Then it removes the two marks of the run, MEMORY and FOLDER, and what belongs to them. It writes the command's
process id to standard output, sends the command's output to standard error, and exits with the command's
status, 128 + N for signal N.

The kernel's own way, PR_SET_PDEATHSIG, does not work in the parent: it fires when the *thread* that started
the child ends. This process has a single thread, so it works here.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_STOP = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_SIGNALS = {*_STOP, signal.SIGCHLD}
_PARENT_CHECK_S = 0.25
_CHILDREN_CHECK_S = 1.5


def main(arguments: list[str]) -> int:
    """Run the command until it ends or must be ended; return the exit status."""
    parent, grace_s, memory, folder, *command = arguments
    try:
        return _run(int(parent), float(grace_s), command)
    finally:
        for mark in (memory, folder):
            remove(Path(mark))


def _run(parent: int, grace_s: float, command: list[str]) -> int:
    prctl = ctypes.CDLL(None).prctl
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    # Descendants whose parent died become children of this process, which can then wait for them.
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    supervisor = os.getpid()

    def prepare_child() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:
            os._exit(1)

    # close_fds: every process of the run must hold the lock that marks the run as alive.
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            close_fds=False,
            process_group=0,
            preexec_fn=prepare_child,  # noqa: PLW1509 - one thread
        )
    except OSError as error:
        print(f"error: {command[0]} cannot be run: {error.strerror}", file=sys.stderr)
        return 126
    print(child.pid, flush=True)
    os.close(sys.stdout.fileno())

    deadline: float | None = None
    unreaped: set[int] = set()
    next_check = time.monotonic()
    while not _has_ended(child.pid):
        received = signal.sigtimedwait(_SIGNALS, _PARENT_CHECK_S)
        now = time.monotonic()
        if os.getppid() != parent or (deadline is not None and now > deadline):
            break
        if received is not None and received.si_signo in _STOP:
            if deadline is not None:
                break
            deadline = now + grace_s
            child.terminate()
        elif now > next_check and deadline is None:
            # Twice in a row: the command may be about to reap a child that it has ended itself.
            before, unreaped = unreaped, _unreaped_children(child.pid)
            if dead := unreaped & before:
                with contextlib.suppress(BrokenPipeError):
                    print(
                        f"error: process {min(dead)}, which ran a model, died: "
                        "perhaps memory ran out, which the system's log then says",
                        file=sys.stderr,
                    )
                break
            next_check = now + _CHILDREN_CHECK_S

    # Before the leader is reaped: until then, the number of its process group is not reused.
    os.killpg(child.pid, signal.SIGKILL)
    status = child.wait()
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-child.pid, 0)  # the rest of its group, now children of this process
    return status if status >= 0 else 128 - status


def remove(mark: Path) -> None:
    """Remove the folder that marks a run as alive, and before it all files beside it that it names."""
    for path in mark.parent.glob(f"{mark.name}?*"):
        with contextlib.suppress(OSError):
            path.unlink()
    shutil.rmtree(mark, ignore_errors=True)


def _has_ended(leader: int) -> bool:
    """Reap ended descendants, but not the leader, which must be reaped last. Tell if the leader has ended."""
    while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if ended.si_pid == leader:
            return True
        os.waitpid(ended.si_pid, 0)
    return False


def _unreaped_children(parent: int) -> set[int]:
    """Return the children of a process that have died and that it has not waited for."""
    unreaped = set()
    for children in Path(f"/proc/{parent}/task").glob("*/children"):
        # Threads and processes may end meanwhile.
        with contextlib.suppress(OSError):
            for pid in children.read_text().split():
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
                if state == "Z":
                    unreaped.add(int(pid))
    return unreaped


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""An image's command as a container runs it: process 1, the image's own user, a root that is read-only.

It has the network of whoever starts it.
"""

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from images.buildah import inspect, mounted

STOP_S = 60
_DEVICES = ("null", "zero", "full", "random", "urandom")
_NAMESPACES = ("unshare", "--mount", "--pid", "--ipc", "--uts", "--fork")
# Mounts that others do not see, and then the program as process 1 of a namespace of its own.
_ENTER = """
set -e
mount --make-rprivate /
mount --bind "$ROOT" "$ROOT"
mount -t proc proc "$ROOT/proc"
mount -t tmpfs -o mode=755 dev "$ROOT/dev"
mkdir "$ROOT/dev/shm"
mount -t tmpfs -o mode=1777,size=64m shm "$ROOT/dev/shm"
mount -t tmpfs -o mode=1777,size="$TMP_SIZE" tmp "$ROOT/tmp"
for device in $DEVICES; do
    touch "$ROOT/dev/$device"
    mount --bind "/dev/$device" "$ROOT/dev/$device"
done
while [ "$1" != -- ]; do
    mount --bind "$1" "$ROOT$2"
    mount -o "remount,bind,$3" "$ROOT$2"
    shift 3
done
shift
mount -o remount,bind,ro "$ROOT"
exec setpriv --no-new-privs unshare --root="$ROOT" --wd="$FOLDER" --setgid="$GROUP_ID" --setuid="$USER_ID" \
    env --ignore-environment "$@"
"""


@dataclass(frozen=True)
class Mount:
    """A folder of this machine inside a container."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True)
class Container:
    """A running container. `pid` is what this machine calls its process 1."""

    runner: subprocess.Popen[bytes]
    pid: int
    log_file: Path

    def log(self) -> str:
        """What it has written so far, to both outputs."""
        return self.log_file.read_text()

    def children(self) -> list[int]:
        """What process 1 has started, zombies included, as this machine calls it."""
        return children(self.pid)

    def stop(self) -> None:
        """Ask process 1 to stop, as container runtimes do."""
        os.kill(self.pid, signal.SIGTERM)

    def wait(self, timeout_s: float = STOP_S) -> int:
        """Return the exit code. Raise TimeoutExpired."""
        return self.runner.wait(timeout_s)


@contextmanager
def running(
    tag: str,
    *mounts: Mount,
    environment: Mapping[str, str] | None = None,
    command: Sequence[str] | None = None,
    tmp_size: str = "64m",
) -> Iterator[Container]:
    """Run an image's command, or another; kill it at the end if it still runs."""
    image = inspect(tag)
    variables = {**image.environment, **(environment or {})}
    user, _, group = image.user.partition(":")
    with mounted(tag) as root, tempfile.NamedTemporaryFile(suffix=".log") as log:
        arguments: list[str] = []
        for mount in mounts:
            (root / mount.target.lstrip("/")).mkdir(parents=True, exist_ok=True)
            arguments += [str(mount.source), mount.target, "rw" if mount.writable else "ro"]
        program = [f"{name}={value}" for name, value in variables.items()]
        runner = subprocess.Popen(
            [*_NAMESPACES, "sh", "-c", _ENTER, "sh", *arguments, "--", *program, *(command or image.command)],
            env={
                **os.environ,
                "ROOT": str(root),
                "TMP_SIZE": tmp_size,
                "DEVICES": " ".join(_DEVICES),
                "FOLDER": image.folder,
                "USER_ID": user,
                "GROUP_ID": group,
            },
            stdout=log,
            stderr=log,
        )
        process_1 = _child(runner.pid)
        try:
            yield Container(runner, process_1, Path(log.name))
        finally:
            # Not the runner, which could not end it: a process that changes its user outlives its parent.
            if runner.poll() is None:
                os.kill(process_1, signal.SIGKILL)
            runner.wait()


def _child(pid: int, timeout_s: float = 10) -> int:
    """Return the process that a process has started. Wait for it."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if found := children(pid):
            return found[0]
        time.sleep(0.01)
    raise TimeoutError(f"process {pid} has started no other")


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and not yet waited for."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for one in lists for child in one.read_text().split()]


def status(pid: int, field: str) -> str:
    """Return a line of /proc/PID/status."""
    text = Path(f"/proc/{pid}/status").read_text()
    [found] = re.finditer(rf"^{field}:\s+(.+)$", text, re.MULTILINE)
    return found[1]

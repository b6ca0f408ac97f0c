"""CPU seconds of processes and their children, from Linux' /proc."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

PROC = Path("/proc")
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
# States of a socket, by the kernel's numbers.
_LISTEN = "0A"


def _fields(pid: int) -> list[str] | None:
    """Return the fields of a process's stat from its state on; None if there is no such process."""
    try:
        # The name, in parentheses, may hold anything.
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _parents() -> dict[int, int]:
    """Return each process's parent."""
    parents = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (fields := _fields(int(entry.name))):
            parents[int(entry.name)] = int(fields[1])
    return parents


def tree(roots: Iterable[int], without: Iterable[int] = ()) -> set[int]:
    """Return these processes and all that they started, but not those of `without`, nor what they started."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents().items():
        children.setdefault(parent, []).append(pid)
    left_out = set(without)
    found: set[int] = set()
    waiting = [root for root in roots if root not in left_out]
    while waiting:
        pid = waiting.pop()
        if pid in found:
            continue
        found.add(pid)
        waiting += [child for child in children.get(pid, ()) if child not in left_out]
    return found


def seconds(pids: Iterable[int]) -> float:
    """Return the CPU seconds that these processes took, and their children that have ended."""
    total = 0
    for pid in pids:
        # utime, stime, cutime, cstime
        total += sum(map(int, (_fields(pid) or ["0"] * 15)[11:15]))
    return total * _TICK_S


class Split:
    """CPU seconds by whose processes they are, since the last look."""

    def __init__(self, roots: Mapping[str, Iterable[int]]) -> None:
        """roots: by name the processes that started all others of theirs. A root of one name that descends
        from a root of another counts for its own name alone.
        """
        everyone = {pid for pids in roots.values() for pid in pids}
        self._roots = {name: set(pids) for name, pids in roots.items()}
        self._others = {name: everyone - pids for name, pids in self._roots.items()}
        self._before = self._now()

    def look(self) -> dict[str, float]:
        """Return what was taken since the last look."""
        now = self._now()
        taken = {name: max(0.0, now[name] - self._before[name]) for name in now}
        self._before = now
        return taken

    def _now(self) -> dict[str, float]:
        return {
            name: seconds(tree(pids, without=self._others[name]))
            for name, pids in self._roots.items()
            if pids
        }


def listeners(port: int) -> set[int]:
    """Return the processes of this machine that listen on a TCP port, of those that this user may look at."""
    inodes = set()
    for name in ("tcp", "tcp6"):
        try:
            lines = (PROC / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    return {int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit() and _has(entry, inodes)}


def _has(process: Path, files: set[str]) -> bool:
    try:
        return any(os.readlink(entry) in files for entry in (process / "fd").iterdir())
    except OSError:
        return False

"""Hosts that are network namespaces, on one switch: with addresses of their own, and cables that can be cut.

The process that uses this lives in a network namespace of its own (`enter`). Its bridge is the switch, and it
has an address on it. What it made there ends with it, also when it is killed.
"""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_CLONE_NEWNET = 0x40000000
_SWITCH = "switch"
_NETWORK = "10.231.0"
HERE = f"{_NETWORK}.1"
"""The address of this process, on the switch."""
SLOW = ("tbf", "rate", "1mbit", "burst", "32kbit", "latency", "2s")
"""A megabit a second. The kernels at hand lack netem, with which packets could be late as well."""


@dataclass(frozen=True)
class Host:
    """A network namespace, its address, and its end of the switch."""

    name: str
    address: str
    port: str

    def command(self, *words: str) -> list[str]:
        """Return a command that runs the words on this host, in the process that is started."""
        return ["ip", "netns", "exec", self.name, *words]

    def cut(self) -> None:
        """Pull the cable: nobody is told, and packets vanish."""
        _ip("link", "set", self.port, "down")

    def connect(self) -> None:
        """Put the cable back."""
        _ip("link", "set", self.port, "up")

    def slow(self) -> None:
        """Let little through the cable, in both directions."""
        for end in self._ends():
            _run(*end, "tc", "qdisc", "add", "dev", self.port, "root", *SLOW)

    def fast(self) -> None:
        for end in self._ends():
            _run(*end, "tc", "qdisc", "delete", "dev", self.port, "root")

    def _ends(self) -> list[list[str]]:
        return [[], self.command()]


def enter() -> None:
    """Move this process, which has one thread, into a network namespace of its own, with a switch.

    Raises PermissionError where that needs root.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        code = ctypes.get_errno()
        raise PermissionError(code, f"no network namespace can be made: {os.strerror(code)}")
    _ip("link", "set", "lo", "up")
    _ip("link", "add", _SWITCH, "type", "bridge")
    _ip("address", "add", f"{HERE}/24", "dev", _SWITCH)
    _ip("link", "set", _SWITCH, "up")


@contextmanager
def hosts(*names: str) -> Iterator[list[Host]]:
    """Make hosts on the switch. At the end they are gone; stop what runs on them before."""
    _sweep()
    made: list[Host] = []
    try:
        for number, name in enumerate(names, 2):
            host = Host(f"{_prefix(os.getpid())}{name}", f"{_NETWORK}.{number}", name)
            _ip("netns", "add", host.name)
            made.append(host)
            # Both ends have the host's short name: they are in different namespaces.
            _ip("link", "add", host.port, "type", "veth", "peer", "name", host.port, "netns", host.name)
            _ip("link", "set", host.port, "master", _SWITCH, "up")
            _ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", host.port)
            for device in ("lo", host.port):
                _ip("-n", host.name, "link", "set", device, "up")
        yield made
    finally:
        for host in made:
            _ip("netns", "delete", host.name)


def _sweep() -> None:
    """Remove the names of hosts whose owner was killed."""
    listed = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True).stdout
    for line in listed.splitlines():
        name = line.split()[0]
        owner = name.removeprefix("visiongate-hosts-").partition("-")[0]
        if name == f"{_prefix(owner)}{name.rpartition('-')[2]}" and not os.path.exists(f"/proc/{owner}"):
            _ip("netns", "delete", name)


def _prefix(owner: int | str) -> str:
    return f"visiongate-hosts-{owner}-"


def _ip(*words: str) -> None:
    _run("ip", *words)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")

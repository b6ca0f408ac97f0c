"""The TCP connections of this process, as the kernel knows them.

gRPC can neither say which connections it has nor close one. The kernel can: gRPC then sees a connection that
has broken. What is done here needs no free descriptor, for that is when it is needed most.
"""

import functools
import logging
import os
import resource
import socket
import stat
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

from gateway import metrics
from gateway.holding import holding
from visiongate.address import join

logger = logging.getLogger(__name__)

MAX_DESCRIPTORS = 1 << 16
"""More are not asked for: containers allow a thousand million, and each connection takes memory, too."""

# What a socket that gRPC owns is looked at through. Kept open: later there may be none to have.
_NOTHING = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
_copy = os.dup(_NOTHING)
_copy_lock = threading.Lock()

# How many calls each connection has, by gRPC's name for its other end.
_calls: Counter[str] = Counter()


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection that somebody has made to a port of this process.

    number: the kernel's, larger for a younger connection. peer: gRPC's name for its other end. address: its
    IP address. port: this end's.
    """

    descriptor: int
    number: int
    peer: str
    address: str
    port: int = 0

    @property
    def has_calls(self) -> bool:
        """Whether a call is under way, or its answer is not taken yet. Calls to health do not count."""
        return self.peer in _calls

    def close(self) -> None:
        """Close the connection. gRPC learns of it, and forgets it."""
        with suppress(OSError), _borrowed(self.descriptor) as connection:
            if os.fstat(connection.fileno()).st_ino == self.number:  # and not another one meanwhile
                connection.shutdown(socket.SHUT_RDWR)


class Connections:
    """The connections to some ports of this process. One thread at a time may look at them."""

    def __init__(self, ports: Iterable[int]) -> None:
        self._ports = frozenset(ports)
        # All sockets of the last look. What is no such connection is None.
        self._known: dict[tuple[int, int], Connection | None] = {}
        self.descriptors = 0
        """How many descriptors the process had open at the last look."""

    def look(self) -> list[Connection]:
        """Return the connections of this moment."""
        known, self.descriptors = {}, 0
        for descriptor in _descriptors():
            with suppress(OSError):  # closed meanwhile
                status = os.fstat(descriptor)
                self.descriptors += 1
                if stat.S_ISSOCK(status.st_mode):
                    key = descriptor, status.st_ino
                    known[key] = self._known[key] if key in self._known else self._find(*key)
        self._known = known
        return [connection for connection in known.values() if connection is not None]

    def _find(self, descriptor: int, number: int) -> Connection | None:
        with suppress(OSError), _borrowed(descriptor) as connection:
            peer = _peer(connection)
            port = connection.getsockname()[1] if peer else 0
            if port in self._ports:
                return Connection(descriptor, number, peer, _host(connection), port)
        return None


def in_use(peer: str) -> AbstractContextManager[None]:
    """Count a call for the connection from `peer`, as gRPC names it, as long as it holds anything.

    It counts from now on: the result must be entered at once.
    """
    peer = unquote(peer)
    _calls[peer] = _calls.get(peer, 0) + 1
    return holding(functools.partial(_release, peer))


def _release(peer: str) -> None:
    _calls[peer] -= 1
    if not _calls[peer]:
        del _calls[peer]


def close_connection(peer: str, reason: Literal["answer"]) -> bool:
    """Close the connections whose other end is `peer`, as gRPC names it; return whether there was any.

    gRPC's asyncio server cannot end a call whose answer the caller does not take: it keeps the answer until
    the caller leaves.
    """
    found = False
    for descriptor in _descriptors():
        with suppress(OSError):  # closed meanwhile, or not connected
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                with _borrowed(descriptor) as connection:
                    if _peer(connection) == unquote(peer):
                        connection.shutdown(socket.SHUT_RDWR)
                        found = True
    if found:
        metrics.CONNECTIONS_CLOSED.labels(reason).inc()
    return found


def raise_descriptor_limit() -> None:
    """Let the process open as many descriptors as it may ever have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    logger.debug("the process may have %d descriptors", max_descriptors())


def max_descriptors() -> int:
    """Return how many descriptors the process may have open at a time."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


def _descriptors() -> Iterable[int]:
    try:
        return [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:  # none is left to read the folder by
        return range(max_descriptors())


@contextmanager
def _borrowed(descriptor: int) -> Iterator[socket.socket]:
    """Lend a copy of a socket, whose owner goes on owning its own."""
    with _copy_lock:
        os.dup2(descriptor, _copy, inheritable=False)
        connection = None
        try:
            connection = socket.socket(fileno=_copy)
            yield connection
        finally:
            if connection is not None:
                connection.detach()
            os.dup2(_NOTHING, _copy, inheritable=False)


def _host(connection: socket.socket) -> str:
    host: str = connection.getpeername()[0]
    return host.removeprefix("::ffff:")  # a socket of IPv6 may have a peer of IPv4


def _peer(connection: socket.socket) -> str:
    """Return gRPC's name for the other end of a TCP connection."""
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return ""
    host = _host(connection)
    return f"ipv{6 if ':' in host else 4}:{join(host, connection.getpeername()[1])}"

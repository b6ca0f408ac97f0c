"""Ports to listen on: a check that a port is free, and a port that several processes share."""

import contextlib
import errno
import socket
from collections.abc import Iterator
from typing import Any

from visiongate.address import join
from visiongate.command_error import CommandError


class ListenError(CommandError):
    """A port cannot be listened on. The message says why, and what to do."""

    def __init__(self, host: str, port: int, option: str, error: Exception) -> None:
        """Put the error of a socket, or gRPC's, into words. `option` sets the port, such as --port."""
        code = getattr(error, "errno", None)
        if code == errno.EADDRINUSE:
            reason = f"the port is in use: stop what uses it, or choose another port by {option}"
        elif code == errno.EACCES:
            reason = f"this user may not use the port: choose one above 1023 by {option}"
        elif code == errno.EADDRNOTAVAIL:
            reason = "this machine does not have the address"
        else:
            reason = getattr(error, "strerror", None) or str(error)
        super().__init__(f"cannot listen on {join(host, port)}: {reason}")


def check_free(host: str, port: int, option: str) -> str:
    """Return the IP address of the host; raise ListenError if nobody can listen on its port now.

    Port 0 stands for any free port.
    """
    with _bind(host, port, option) as bound:
        return str(bound.getsockname()[0])


@contextlib.contextmanager
def reserved(host: str, port: int, option: str) -> Iterator[int]:
    """Reserve a port, or a free one for 0, for this user's processes; raise ListenError if it is in use.

    A socket that does not listen holds the port: the kernel sends it no connections, and other processes can
    share the port.
    """
    # First without SO_REUSEPORT: with it, two gateways of one user would share their calls by mistake.
    check_free(host, port, option)
    with _bind(host, port, option, socket.SO_REUSEPORT) as holder:
        yield holder.getsockname()[1]


def listener(host: str, port: int, option: str, *, is_shared: bool) -> socket.socket:
    """Return a socket to listen on a port; raise ListenError. is_shared: other processes have it, too."""
    if not is_shared:
        check_free(host, port, option)
    return _bind(host, port, option, *([socket.SO_REUSEPORT] if is_shared else []))


def _bind(host: str, port: int, option: str, *socket_options: int) -> socket.socket:
    """Return a socket that is bound to the port and does not listen; raise ListenError."""
    try:
        entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = entries[0]
        return _bind_address(family, kind, protocol, address, socket_options)
    except OSError as error:
        raise ListenError(host, port, option, error) from error


def _bind_address(
    family: int, kind: int, protocol: int, address: Any, socket_options: tuple[int, ...]
) -> socket.socket:
    bound = socket.socket(family, kind, protocol)
    try:
        # SO_REUSEADDR: connections of an earlier run that are still closing must not matter.
        for option in (socket.SO_REUSEADDR, *socket_options):
            bound.setsockopt(socket.SOL_SOCKET, option, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound

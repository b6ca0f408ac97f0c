"""Ports to listen on: whether they are free, and one held for several processes."""

import contextlib
import errno
import socket
from collections.abc import Iterator
from typing import Any

from visiongate.address import join
from visiongate.command_error import CommandError


class ListenError(CommandError):
    """A port cannot be listened on; the message says why and what to do."""

    def __init__(self, host: str, port: int, option: str, error: Exception) -> None:
        """Word the error of a socket, or gRPC's. `option` is the one that names the port, such as --port."""
        code = getattr(error, "errno", None)
        if code == errno.EADDRINUSE:
            reason = f"the port is in use: stop what uses it, or take another by {option}"
        elif code == errno.EACCES:
            reason = f"this user may not use the port: take one above 1023 by {option}"
        elif code == errno.EADDRNOTAVAIL:
            reason = "this machine does not have the address"
        else:
            reason = getattr(error, "strerror", None) or str(error)
        super().__init__(f"cannot listen on {join(host, port)}: {reason}")


def check_free(host: str, port: int, option: str) -> None:
    """Raise ListenError where nobody can listen on the port now. Port 0, any free one, is always there."""
    with _held(host, port, option):
        pass


@contextlib.contextmanager
def reserved(host: str, port: int, option: str) -> Iterator[int]:
    """Inside, the port, or a free one for 0, is this user's; ListenError where another program listens there.

    Held by a socket that does not listen: the kernel gives it no calls, and processes can share its port.
    """
    # Without SO_REUSEPORT first: it would let two gateways of one user share their calls by mistake.
    check_free(host, port, option)
    with _held(host, port, option, socket.SO_REUSEPORT) as held:
        yield held.getsockname()[1]


def _held(host: str, port: int, option: str, *options: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        return _bound(family, kind, protocol, address, options)
    except OSError as error:
        raise ListenError(host, port, option, error) from error


def _bound(family: int, kind: int, protocol: int, address: Any, options: tuple[int, ...]) -> socket.socket:
    bound = socket.socket(family, kind, protocol)
    try:
        # Connections of an earlier run that have not quite ended are no hindrance.
        for option in (socket.SO_REUSEADDR, *options):
            bound.setsockopt(socket.SOL_SOCKET, option, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound

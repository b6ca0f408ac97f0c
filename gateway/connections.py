"""The TCP connections of this process, as the kernel knows them."""

import os
import socket
import stat
from contextlib import suppress
from urllib.parse import unquote

from visiongate.address import join


def close_connection(peer: str) -> bool:
    """Close the connections whose other end is `peer`, as gRPC names it; return whether there was any.

    gRPC's asyncio server cannot end a call whose answer the caller does not take: it keeps the answer until
    the caller leaves. The kernel can: gRPC then sees a connection that has broken.
    """
    found = False
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # closed meanwhile, or not connected
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                # A copy of the descriptor: gRPC goes on owning its own.
                with socket.socket(fileno=os.dup(int(name))) as connection:
                    if _peer(connection) == unquote(peer):
                        connection.shutdown(socket.SHUT_RDWR)
                        found = True
    return found


def _peer(connection: socket.socket) -> str:
    """Return gRPC's name for the other end of a TCP connection."""
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return ""
    host, port, *_ = connection.getpeername()
    host = host.removeprefix("::ffff:")  # a socket of IPv6 may have a peer of IPv4
    return f"ipv{6 if ':' in host else 4}:{join(host, port)}"

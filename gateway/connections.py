"""The TCP connections of this process, as the kernel knows them."""

import os
import socket
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
        # A copy of the descriptor: gRPC goes on owning its own. Most are no socket, or not connected.
        with suppress(OSError), socket.socket(fileno=os.dup(int(name))) as connection:
            if connection.family not in (socket.AF_INET, socket.AF_INET6):
                continue
            host, port, *_ = connection.getpeername()
            # A socket of IPv6 may have a peer of IPv4.
            host = host.removeprefix("::ffff:")
            if unquote(peer) == f"ipv{6 if ':' in host else 4}:{join(host, port)}":
                connection.shutdown(socket.SHUT_RDWR)
                found = True
    return found

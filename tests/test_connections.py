"""Connections that are closed by what gRPC calls their other end."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from gateway.connections import close_connection


@pytest.fixture(params=[("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::", "127.0.0.1")])
def pairs(request: pytest.FixtureRequest) -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    """Two connections of this process to itself: the client's end and the server's."""
    host, client_host = request.param
    is_ipv6 = ":" in host
    with ExitStack() as sockets:
        listener = sockets.enter_context(
            socket.create_server(
                (host, 0),
                family=socket.AF_INET6 if is_ipv6 else socket.AF_INET,
                dualstack_ipv6=is_ipv6,
            )
        )
        made = []
        for _ in range(2):
            address = client_host, listener.getsockname()[1]
            client = sockets.enter_context(socket.create_connection(address, timeout=10))
            made.append((client, sockets.enter_context(listener.accept()[0])))
        yield made


def test_only_the_connection_of_that_peer_is_closed(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    (client, server), (other_client, other_server) = pairs
    host, port, *_ = client.getsockname()
    assert close_connection(f"ipv6:%5B{host}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}", "answer")
    assert client.recv(1) == b""
    other_server.sendall(b"x")
    assert other_client.recv(1) == b"x"
    # The descriptor is still its owner's.
    assert server.fileno() >= 0


def test_a_peer_that_has_left() -> None:
    before = len(os.listdir("/proc/self/fd"))
    first, second = socket.socketpair()
    with first, second, open(os.devnull) as _file:
        assert not close_connection("ipv4:192.0.2.1:9", "answer")
        assert not close_connection("unix:", "answer")
    assert len(os.listdir("/proc/self/fd")) == before, "descriptors are left open"

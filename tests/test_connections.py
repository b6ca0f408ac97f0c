"""Connections that are closed by what gRPC calls their other end."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from gateway.connections import close_connection


@pytest.fixture(params=["127.0.0.1", "::1"])
def pairs(request: pytest.FixtureRequest) -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    """Two connections of this process to itself: the client's end and the server's."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.create_server((request.param, 0), family=family))
        made = []
        for _ in range(2):
            client = sockets.enter_context(socket.create_connection(listener.getsockname()[:2], timeout=10))
            made.append((client, sockets.enter_context(listener.accept()[0])))
        yield made


def test_only_the_connection_of_that_peer_is_closed(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    (client, server), (other_client, other_server) = pairs
    host, port, *_ = client.getsockname()
    assert close_connection(f"ipv6:%5B{host}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}")
    assert client.recv(1) == b""
    other_server.sendall(b"x")
    assert other_client.recv(1) == b"x"
    # The descriptor is still its owner's.
    assert server.fileno() >= 0


def test_a_peer_that_has_left() -> None:
    assert not close_connection("ipv4:192.0.2.1:9")
    assert not close_connection("unix:")

"""The connections of this process: found, closed, and left alone."""

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from gateway import connections
from gateway.connections import (
    Connection,
    Connections,
    close_connection,
    in_use,
    max_descriptors,
    raise_descriptor_limit,
)
from gateway.holding import keep

Pair = tuple[socket.socket, socket.socket]


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


def peer_of(client: socket.socket) -> str:
    host, port, *_ = client.getsockname()
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"


def test_connections_to_a_port_are_found(pairs: list[Pair]) -> None:
    port = pairs[0][1].getsockname()[1]
    looking = Connections([port])
    found = {connection.peer: connection for connection in looking.look()}
    # Neither the listener nor the clients' ends, which are this process's, too.
    assert set(found) == {peer_of(client) for client, _ in pairs}
    first, second = (found[peer_of(client)] for client, _ in pairs)
    assert first.descriptor == pairs[0][1].fileno()
    assert first.address == pairs[0][0].getsockname()[0]
    assert first.number < second.number, "the second is younger"
    assert looking.descriptors >= 5
    pairs[0][1].close()
    assert looking.look() == [second]
    assert Connections([1]).look() == []


def test_a_connection_is_closed_and_no_other_that_has_got_its_descriptor(pairs: list[Pair]) -> None:
    (client, server), (other_client, other_server) = pairs
    first, second = (
        Connection(end.fileno(), os.fstat(end.fileno()).st_ino, "", "") for end in (server, other_server)
    )
    first.close()
    assert client.recv(1) == b""
    Connection(other_server.fileno(), first.number, "", "").close()
    other_server.sendall(b"x")
    assert other_client.recv(1) == b"x"
    second.close()
    assert other_client.recv(1) == b""


def test_a_connection_is_in_use_until_nothing_of_its_calls_is_held() -> None:
    connection = Connection(0, 0, "ipv6:[::1]:9", "::1")
    assert not connection.has_calls
    with in_use("ipv6:%5B::1%5D:9"), in_use("ipv6:%5B::1%5D:9"):
        assert connection.has_calls
        answer_is_taken = keep()
    assert connection.has_calls
    answer_is_taken()
    assert not connection.has_calls


def test_nothing_here_needs_a_free_descriptor(pairs: list[Pair]) -> None:
    (client, server), _ = pairs
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as opened:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 4096), hard))
        opened.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        with suppress(OSError):
            while True:
                opened.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(OSError, match="Too many open files"):
            os.dup(0)
        looking = Connections([server.getsockname()[1]])
        assert {connection.peer for connection in looking.look()} == {peer_of(end) for end, _ in pairs}
        assert looking.descriptors == max_descriptors()
        assert close_connection(peer_of(client), "answer")
    assert client.recv(1) == b""


def test_the_limit_of_descriptors_is_raised_as_far_as_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        monkeypatch.setattr(connections, "MAX_DESCRIPTORS", 300)
        raise_descriptor_limit()
        assert max_descriptors() == 300
        resource.setrlimit(resource.RLIMIT_NOFILE, (400, hard))
        raise_descriptor_limit()
        assert max_descriptors() == 400, "it was lowered"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

"""Ports that are taken, shared and free."""

import socket
from collections.abc import Iterator

import pytest

from gateway import ports
from gateway.ports import ListenError


@pytest.fixture
def foreign() -> Iterator[socket.socket]:
    """Another program's socket on a port, not yet listening."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        yield other


def test_a_free_port_becomes_one_that_processes_can_share() -> None:
    with ports.reserved("127.0.0.1", 0, "--port") as port:
        assert port
        for _ in range(2):
            with socket.socket() as sharer:
                sharer.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                sharer.bind(("127.0.0.1", port))
        # Who does not ask to share it, does not get it.
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))


def test_the_reserved_port_gets_no_connections() -> None:
    with ports.reserved("localhost", 0, "--port") as port, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


@pytest.mark.parametrize("shares", [False, True])
def test_another_programs_port_is_an_error(foreign: socket.socket, shares: bool) -> None:
    if shares:
        foreign.close()
        foreign = socket.create_server(("127.0.0.1", 0), reuse_port=True)
    with foreign:
        foreign.listen()
        port = foreign.getsockname()[1]
        with (
            pytest.raises(
                ListenError, match=rf"cannot listen on 127\.0\.0\.1:{port}: the port is in use.*--port"
            ),
            ports.reserved("127.0.0.1", port, "--port"),
        ):
            pass


def test_an_unknown_host_is_an_error() -> None:
    with (
        pytest.raises(ListenError, match=r"cannot listen on no\.host\.invalid:0: "),
        ports.reserved("no.host.invalid", 0, "--port"),
    ):
        pass


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "0.0.0.0", "::"])
def test_a_port_in_use_is_told_with_the_option_for_another(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        taken = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip(f"this machine has no {host}")
    with taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenError) as caught:
            ports.check_free(host, port, "--metrics-port")
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    assert str(caught.value) == (
        f"cannot listen on {address}: the port is in use: "
        "stop what uses it, or choose another port by --metrics-port"
    )
    ports.check_free(host, port, "--metrics-port")


def test_an_address_of_another_machine() -> None:
    with pytest.raises(ListenError, match=r"192\.0\.2\.1:7: this machine does not have the address"):
        ports.check_free("192.0.2.1", 7, "--port")

import socket

import pytest

from gateway.embedded import listening
from gateway.embedded.error import EmbeddedTritonError
from gateway.embedded.listening import Listening


def test_names_are_resolved_and_free_ports_are_picked() -> None:
    found = Listening.at("localhost", (0, 0, 0))
    assert found.ip in ("127.0.0.1", "::1"), "Triton takes no names"
    assert len({*found.ports, 0}) == 4
    with socket.create_server(("127.0.0.1", 0)) as once_taken:
        port = once_taken.getsockname()[1]
    assert Listening.at("127.0.0.1", (0, port, 0)).ports[1] == port


@pytest.mark.parametrize(
    ("ip", "grpc_address", "http_address", "shown", "is_loopback"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.1:1", True),
        ("10.0.0.7", "10.0.0.7", "10.0.0.7", "10.0.0.7:1", False),
        ("0.0.0.0", "0.0.0.0", "0.0.0.0", "0.0.0.0:1", False),
        ("::1", "[::1]", "ipv6:::1", "[::1]:1", True),
        ("::", "[::]", "ipv6:::", "[::]:1", False),
    ],
)
def test_each_service_gets_the_address_as_it_wants_it(
    ip: str, grpc_address: str, http_address: str, shown: str, is_loopback: bool
) -> None:
    place = Listening(ip, (1, 2, 3))
    assert set(place.arguments()) == {
        f"--grpc-address={grpc_address}",
        "--grpc-port=1",
        f"--http-address={http_address}",
        "--http-port=2",
        f"--metrics-address={http_address}",
        "--metrics-port=3",
    }
    assert place.address(0) == shown
    assert place.is_loopback == is_loopback


def test_an_address_with_a_zone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "check_free", lambda *_: "fe80::1%eth0")
    with pytest.raises(EmbeddedTritonError, match=r"fe80::1%eth0: Triton cannot listen on .* zone"):
        Listening.at("fe80::1%eth0", (0, 0, 0))

"""Addresses as people write them."""

from typing import Any

import pytest

from visiongate.address import parse_address

LOCAL = {
    "127.0.0.1:50051": "127.0.0.1:50051",
    "127.0.0.1": "127.0.0.1:50051",
    "127.8.9.10:1": "127.8.9.10:1",
    "0.0.0.0:7": "0.0.0.0:7",
    "localhost:50051": "localhost:50051",
    "localhost": "localhost:50051",
    "LocalHost.:80": "LocalHost.:80",
    "::1": "[::1]:50051",
    "::": "[::]:50051",
    "[::1]": "[::1]:50051",
    "[::1]:65535": "[::1]:65535",
    "::ffff:127.0.0.1": "[::ffff:127.0.0.1]:50051",
    "dns:///localhost:1": "dns:///localhost:1",
    "dns:localhost": "dns:localhost:50051",
    "ipv4:127.0.0.1": "ipv4:127.0.0.1:50051",
    "ipv4:127.0.0.1:1,127.0.0.1": "ipv4:127.0.0.1:1,127.0.0.1:50051",
    "ipv6:[::1]:1,[::1]": "ipv6:[::1]:1,[::1]:50051",
    "unix:/run/visiongate.sock": "unix:/run/visiongate.sock",
    "unix:///run/visiongate.sock": "unix:///run/visiongate.sock",
    "unix-abstract:visiongate": "unix-abstract:visiongate",
}
REMOTE = {
    "vision.example.com:443": "vision.example.com:443",
    "vision.example.com": "vision.example.com:50051",
    "vision_gateway-1": "vision_gateway-1:50051",
    "10.0.0.7:50051": "10.0.0.7:50051",
    "2001:db8::1": "[2001:db8::1]:50051",
    "[2001:db8::1]:1": "[2001:db8::1]:1",
    "localhost.example.com:50051": "localhost.example.com:50051",
    "127.0.0.1.example.com:50051": "127.0.0.1.example.com:50051",
    "dns://8.8.8.8/localhost:50051": "dns://8.8.8.8/localhost:50051",
    "ipv4:127.0.0.1:1,10.0.0.7:1": "ipv4:127.0.0.1:1,10.0.0.7:1",
    "xds:///localhost": "xds:///localhost",
}


@pytest.mark.parametrize("text", [*LOCAL, *REMOTE])
def test_what_grpc_is_told_and_whether_it_is_this_machine(text: str) -> None:
    address = parse_address(text, "address")
    assert address.text == (LOCAL | REMOTE)[text]
    assert address.is_local is (text in LOCAL)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "address is empty: give host or host:port, such as 127.0.0.1:50051"),
        ("  ", "address is '  ': give host or host:port"),
        (None, "address is None: give host"),
        (50051, "address is 50051: give host"),
        ("http://127.0.0.1:50051", "gRPC has no http:// in front: give host or host:port"),
        ("https://vision.example.com", "gRPC has no https:// in front"),
        ("grpc://127.0.0.1:50051", "gRPC has no grpc:// in front"),
        ("host:50051:50051", "the port is not a number from 1 to 65535"),
        ("host:", "the port is not a number"),
        ("host:port", "the port is not a number"),
        ("host:0", "the port is not a number from 1"),
        ("host:65536", "the port is not a number"),
        ("host:0000099999", "the port is not a number"),
        ("host:-1", "the port is not a number"),
        ("host:٣", "the port is not a number"),
        ("[::1]:", "the port is not a number"),
        ("[::1]50051", "that is not the name of a host"),
        ("[127.0.0.1]:1", "what is in brackets is not an IPv6 address"),
        ("[::1", "that is not the name of a host"),
        (":50051", "that is not the name of a host"),
        ("127.0.0.1:50051/", "the port is not a number"),
        (" 127.0.0.1:50051", "that is not the name of a host"),
        ("two hosts", "that is not the name of a host"),
        ("ipv4:", "that is not the name of a host"),
        ("dns://8.8.8.8", "that is not the name of a host"),
    ],
)
def test_what_is_no_address(text: Any, says: str) -> None:
    with pytest.raises(ValueError, match=r"^address is ") as caught:
        parse_address(text, "address")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)

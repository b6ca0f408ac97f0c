import socket
from typing import Any

import pytest

from gateway.triton_addresses import resolve


async def test_each_address_is_a_server() -> None:
    endpoints = await resolve("127.0.0.1:1, [::1]:2,127.0.0.1:1,ipv4:10.0.0.7:8001")
    assert [(each.name, each.target) for each in endpoints] == [
        ("127.0.0.1:1", "ipv4:127.0.0.1:1"),
        ("[::1]:2", "ipv6:[::1]:2"),
        ("10.0.0.7:8001", "ipv4:10.0.0.7:8001"),
    ]


@pytest.mark.parametrize("written", ["triton:8001", "dns:///triton:8001", "dns:triton:8001"])
async def test_a_name_stands_for_several(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def lookup(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        assert (host, port) == ("triton", 8001)
        stream = socket.SOCK_STREAM
        return [
            (socket.AF_INET6, stream, 6, "", ("fd00::7", 8001, 0, 0)),
            (socket.AF_INET, stream, 6, "", ("10.0.0.7", 8001)),
            (socket.AF_INET, stream, 6, "", ("10.0.0.8", 8001)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    endpoints = await resolve(written)
    assert [each.name for each in endpoints] == ["[fd00::7]:8001", "10.0.0.7:8001", "10.0.0.8:8001"]
    assert [each.is_ipv6 for each in endpoints] == [True, False, False]
    assert {each.origin for each in endpoints} == {written}


@pytest.mark.parametrize("written", ["unix:/run/triton", "xds:///triton", "dns://10.0.0.53/triton:8001"])
async def test_what_only_grpc_can_look_up_is_one_server(written: str) -> None:
    (endpoint,) = await resolve(written)
    assert (endpoint.name, endpoint.target) == (written, written)


async def test_an_unknown_name() -> None:
    with pytest.raises(socket.gaierror):
        await resolve("127.0.0.1:1,nobody.invalid:8001")

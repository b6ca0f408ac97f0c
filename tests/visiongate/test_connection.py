"""What is sent, and what is refused before it can be."""

from pathlib import Path
from typing import Any

import pytest
import trustme

import visiongate
from visiongate.connection import Connection

NOTHING: dict[str, Any] = dict.fromkeys(
    ("api_key", "tls", "root_certificates", "client_certificate", "client_key")
)
LOCAL = [
    "127.0.0.1:50051",
    "127.8.9.10:1",
    "localhost:50051",
    "localhost",
    "[::1]:50051",
    "dns:///localhost:50051",
    "dns:localhost:50051",
    "ipv4:127.0.0.1:50051",
    "ipv4:127.0.0.1:1,127.0.0.1:2",
    "ipv6:[::1]:50051",
    "unix:/run/visiongate.sock",
    "unix-abstract:visiongate",
]
REMOTE = [
    "vision.example.com:443",
    "10.0.0.7:50051",
    "[2001:db8::1]:50051",
    "localhost.example.com:50051",
    "127.0.0.1.example.com:50051",
    "dns://8.8.8.8/localhost:50051",
    "ipv4:127.0.0.1:1,10.0.0.7:1",
    "xds:///localhost",
    "",
]


def connection(address: str = "vision.example.com:443", **keywords: Any) -> Connection:
    return Connection(address, **NOTHING | keywords)


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.mark.parametrize("address", [*LOCAL, *REMOTE])
def test_without_arguments_there_is_no_tls_and_no_key(address: str) -> None:
    assert connection(address).credentials is None
    assert connection(address).metadata == ()


@pytest.mark.parametrize("address", LOCAL)
def test_a_key_may_go_to_this_machine_unencrypted(address: str) -> None:
    assert connection(address, api_key="vg_key").metadata == (("authorization", "Bearer vg_key"),)


@pytest.mark.parametrize("address", REMOTE)
def test_a_key_goes_to_another_machine_only_if_that_is_meant(address: str) -> None:
    with pytest.raises(ValueError, match="unencrypted: use TLS"):
        connection(address, api_key="vg_key")
    assert connection(address, api_key="vg_key", tls=False).credentials is None
    assert connection(address, api_key="vg_key", tls=True).metadata


@pytest.mark.parametrize("key", ["", "vg_key\n", "vg key", "clé"])
def test_a_key_that_no_header_carries_is_not_quoted(key: str) -> None:
    with pytest.raises(ValueError, match="the API key is empty, or has") as caught:
        connection("127.0.0.1:1", api_key=key)
    assert not key or key not in str(caught.value)


def test_tls_by_the_machines_authorities_and_by_others(ca: trustme.CA, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    pem = ca.cert_pem.bytes()
    for roots in (path, str(path), pem):
        assert connection(root_certificates=roots).credentials is not None
    leaf = ca.issue_cert("client@example.com")
    key, chain = leaf.private_key_pem.bytes(), leaf.cert_chain_pems[0].bytes()
    assert connection(client_certificate=chain, client_key=key).credentials is not None


def test_the_machines_authorities_unless_grpc_is_told_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ca: trustme.CA
) -> None:
    path = tmp_path / "machine.pem"
    ca.cert_pem.write_to_path(str(path))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    monkeypatch.delenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", raising=False)
    given: list[Any] = []
    monkeypatch.setattr("grpc.ssl_channel_credentials", lambda *pems: given.append(pems))
    connection(tls=True)
    monkeypatch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "elsewhere")
    connection(tls=True)
    assert given == [(ca.cert_pem.bytes(), None, None), (None, None, None)]


@pytest.mark.parametrize(
    ("keywords", "says"),
    [
        ({"client_certificate": b"x"}, "client_certificate and client_key go together"),
        ({"client_key": b"x"}, "client_certificate and client_key go together"),
        ({"tls": False, "root_certificates": b"x"}, "certificates are for TLS"),
        ({"root_certificates": b"x"}, "the data given is not PEM"),
        ({"root_certificates": __file__}, r"test_connection.py is not PEM"),
    ],
)
def test_arguments_that_cannot_be_meant(keywords: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        connection(**keywords)


def test_a_file_that_is_missing_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere.pem"):
        connection(root_certificates="nowhere.pem")


async def test_both_clients_take_the_same() -> None:
    for client in (visiongate.Client, visiongate.AsyncClient):
        with pytest.raises(ValueError, match="unencrypted: use TLS"):
            client("vision.example.com:443", api_key="vg_key")

"""What is sent, and what is refused before it can be."""

from pathlib import Path
from typing import Any

import pytest
import trustme

import visiongate
from visiongate.connection import PROXY_VARIABLES, Connection

LOCAL = ["127.0.0.1:50051", "localhost", "[::1]:50051", "unix:/run/visiongate.sock"]
REMOTE = ["vision.example.com:443", "10.0.0.7", "localhost.example.com", "xds:///localhost"]
VARIABLES = [f"VISIONGATE_{name}" for name in ("SERVER", "API_KEY", "TLS", "CA", "CERT", "CERT_KEY")]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, *PROXY_VARIABLES):
        monkeypatch.delenv(name, raising=False)


def connection(address: str = "vision.example.com:443", **keywords: Any) -> Connection:
    return Connection(address, **keywords)


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
        ({"root_certificates": b"x"}, "root_certificates: the data given is not PEM"),
        ({"root_certificates": b""}, "root_certificates: the data given is not PEM"),
        ({"root_certificates": __file__}, r"test_connection.py is not PEM"),
        ({"root_certificates": 7}, "root_certificates is a path or PEM bytes, not int"),
        ({"tls": "false"}, "tls is 'false': give True, False or None"),
        ({"api_key": b"vg_key"}, "the API key is empty, or has"),
    ],
)
def test_arguments_that_cannot_be_meant(keywords: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        connection(**keywords)


def test_a_file_that_is_missing_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere.pem"):
        connection(root_certificates="nowhere.pem")


def test_both_clients_take_the_same() -> None:
    for client in (visiongate.Client, visiongate.AsyncClient):
        with pytest.raises(ValueError, match="unencrypted: use TLS"):
            client("vision.example.com:443", api_key="vg_key")


def test_what_is_not_given_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ca: trustme.CA
) -> None:
    assert Connection().address.text == "127.0.0.1:50051"
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
    # Empty ones count as unset.
    assert (Connection().address.text, Connection().credentials) == ("127.0.0.1:50051", None)
    monkeypatch.setenv("VISIONGATE_SERVER", "vision.example.com:443")
    monkeypatch.setenv("VISIONGATE_API_KEY", "vg_key")
    with pytest.raises(
        ValueError, match=r"the API key of VISIONGATE_API_KEY would go to vision.example.com:443"
    ):
        Connection()
    # What is given counts more.
    assert Connection("::1", api_key="other").metadata == (("authorization", "Bearer other"),)
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    monkeypatch.setenv("VISIONGATE_CA", str(path))
    assert Connection().credentials is not None
    assert Connection().metadata == (("authorization", "Bearer vg_key"),)
    assert Connection(tls=False).credentials is None
    monkeypatch.setenv("VISIONGATE_CERT", str(path))
    with pytest.raises(ValueError, match="client_certificate and client_key go together"):
        Connection()
    monkeypatch.setenv("VISIONGATE_CERT_KEY", str(tmp_path / "nowhere.pem"))
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pem"):
        Connection()


@pytest.mark.parametrize(("text", "is_encrypted"), [("1", True), ("True", True), ("no", False), ("0", False)])
def test_tls_by_the_environment(monkeypatch: pytest.MonkeyPatch, text: str, is_encrypted: bool) -> None:
    monkeypatch.setenv("VISIONGATE_TLS", text)
    assert (connection(api_key="vg_key").credentials is not None) is is_encrypted
    assert connection(tls=not is_encrypted).credentials is None or not is_encrypted


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("VISIONGATE_TLS", "perhaps", "VISIONGATE_TLS is 'perhaps': give 1 or 0"),
        ("VISIONGATE_SERVER", "http://a", "VISIONGATE_SERVER is 'http://a', and gRPC has no http"),
        ("VISIONGATE_API_KEY", "vg_key\n", "the API key of VISIONGATE_API_KEY is empty, or has"),
    ],
)
def test_variables_that_cannot_be_meant(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, says: str
) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(ValueError, match="VISIONGATE_") as caught:
        Connection()
    assert says in str(caught.value)
    assert "vg_key" not in str(caught.value)

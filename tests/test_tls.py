"""Certificates: what is refused at the start, and what a running server does with new files."""

import logging
import math
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from prometheus_client import REGISTRY

from gateway.settings import Settings
from gateway.tls import Certificates, expires_at, server_credentials

END = "-----END CERTIFICATE-----\n"
RELOADS = "visiongate_reloads_total"


def counted(name: str, **labels: str) -> float:
    value = REGISTRY.get_sample_value(name, labels)
    assert value is not None
    return value


def put(path: Path, content: bytes) -> None:
    """Replaces a file as certificate managers do."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.replace(path)


@dataclass(frozen=True)
class Files:
    """A server's files, of which each may be replaced."""

    certificate: Path
    key: Path
    client_ca: Path

    def put_certificate(self, ca: trustme.CA) -> None:
        leaf = ca.issue_cert("127.0.0.1")
        put(self.certificate, b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
        put(self.key, leaf.private_key_pem.bytes())

    def settings(self, **others: Any) -> Settings:
        return Settings(tls_certificate=self.certificate, tls_key=self.key, **others)


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def other_ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(tmp_path: Path, ca: trustme.CA) -> Files:
    made = Files(tmp_path / "tls.crt", tmp_path / "tls.key", tmp_path / "ca.crt")
    made.put_certificate(ca)
    put(made.client_ca, ca.cert_pem.bytes())
    return made


def test_no_settings_are_no_tls() -> None:
    assert server_credentials(Settings()) is None


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ({"tls_certificate"}, "tls_certificate and tls_key go together"),
        ({"tls_key"}, "tls_certificate and tls_key go together"),
        ({"tls_client_ca"}, "tls_client_ca needs tls_certificate and tls_key"),
    ],
)
def test_settings_that_do_not_go_together(names: set[str], says: str, files: Files) -> None:
    with pytest.raises(ValueError, match=says):
        server_credentials(Settings(**dict.fromkeys(names, files.certificate)))


@pytest.mark.parametrize("year", [2001, 2049, 2050, 2500])
def test_when_the_certificate_expires_is_measured(files: Files, ca: trustme.CA, year: int) -> None:
    """Until 2049 the year has two digits in the file, then four."""
    end = datetime(year, 2, 3, 4, 5, 6, tzinfo=UTC)
    leaf = ca.issue_cert("127.0.0.1", not_before=datetime(2000, 1, 1, tzinfo=UTC), not_after=end)
    put(files.certificate, b"".join(pem.bytes() for pem in (*leaf.cert_chain_pems, ca.cert_pem)))
    put(files.key, leaf.private_key_pem.bytes())
    server_credentials(files.settings())
    assert counted("visiongate_certificate_expiry_seconds", file=str(files.certificate)) == end.timestamp()


@pytest.mark.parametrize(
    "chain", [b"", b"\xff", b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----"]
)
def test_what_is_no_certificate_has_no_expiry(chain: bytes) -> None:
    assert math.isnan(expires_at(chain))


def test_a_damaged_certificate_raises_nothing(files: Files) -> None:
    der = ssl.PEM_cert_to_DER_cert(files.certificate.read_text().partition("-----END")[0] + END)
    assert expires_at(ssl.DER_cert_to_PEM_cert(der).encode()) > 0
    for length in range(len(der)):
        expires_at(ssl.DER_cert_to_PEM_cert(der[:length]).encode())
    for place in range(200):
        expires_at(ssl.DER_cert_to_PEM_cert(der[:place] + b"\xff" + der[place + 1 :]).encode())


def encrypted(key: bytes) -> bytes:
    return serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda files, other: files.certificate.unlink(), r"cannot read .*tls.crt for TLS: No such file"),
        (lambda files, other: files.key.unlink(), r"cannot read .*tls.key for TLS: No such file"),
        (lambda files, other: files.client_ca.unlink(), r"cannot read .*ca.crt for TLS: No such file"),
        (lambda files, other: put(files.certificate, b""), r"tls.crt and .*tls.key are not a certificate"),
        (lambda files, other: put(files.key, b"no key"), r"tls.crt and .*tls.key are not a certificate"),
        (lambda files, other: put(files.key, other), "are not a certificate chain and its .*MISMATCH"),
        (
            lambda files, other: put(files.key, encrypted(files.key.read_bytes())),
            "and its unencrypted private key",
        ),
        (lambda files, other: put(files.client_ca, b""), r"tls_client_ca .*ca.crt has no PEM certificates"),
        (lambda files, other: put(files.client_ca, other), r"tls_client_ca .*ca.crt has no PEM certificates"),
    ],
)
def test_files_that_cannot_serve(
    files: Files, ca: trustme.CA, damage: Callable[[Files, bytes], None], says: str
) -> None:
    settings = files.settings(tls_client_ca=files.client_ca)
    assert server_credentials(settings) is not None
    damage(files, ca.issue_cert("127.0.0.1").private_key_pem.bytes())
    with pytest.raises(ValueError, match=says):
        server_credentials(settings)


def test_files_are_read_when_they_change(
    files: Files, ca: trustme.CA, other_ca: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    certificates = Certificates(files.certificate, files.key, files.client_ca)
    assert certificates.read_if_changed() is None
    ok, failed = (counted(RELOADS, what="certificates", result=result) for result in ("ok", "failed"))
    put(files.client_ca, other_ca.cert_pem.bytes())
    assert certificates.read_if_changed() is not None
    assert certificates.read_if_changed() is None
    # Between the two writes of a new pair, files do not match.
    put(files.certificate, ca.issue_cert("127.0.0.1").cert_chain_pems[0].bytes())
    assert [certificates.read_if_changed() for _ in range(3)] == [None] * 3
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert "the previous certificate stays in use" in record.message
    files.put_certificate(ca)
    assert certificates.read_if_changed() is not None
    assert counted(RELOADS, what="certificates", result="ok") == ok + 2
    assert counted(RELOADS, what="certificates", result="failed") == failed + 1


Ask = Callable[..., Any]


@pytest.fixture
async def ask(files: Files) -> AsyncIterator[Ask]:
    """Asks a server that wants client certificates for its health, over a connection of its own."""
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(health_aio.HealthServicer(), server)
    credentials = server_credentials(files.settings(tls_client_ca=files.client_ca))
    assert credentials is not None
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()

    async def check(server_ca: trustme.CA, client_ca: trustme.CA) -> grpc.StatusCode:
        leaf = client_ca.issue_cert("client@example.com")
        channel = grpc.aio.secure_channel(
            f"127.0.0.1:{port}",
            grpc.ssl_channel_credentials(
                server_ca.cert_pem.bytes(), leaf.private_key_pem.bytes(), leaf.cert_chain_pems[0].bytes()
            ),
        )
        async with channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            try:
                await stub.Check(health_pb2.HealthCheckRequest())
            except grpc.aio.AioRpcError as error:
                return error.code()
            return grpc.StatusCode.OK

    yield check
    await server.stop(None)


async def test_a_running_server_takes_new_files_and_no_broken_ones(
    files: Files, ca: trustme.CA, other_ca: trustme.CA, ask: Ask
) -> None:
    ok, unavailable = grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE
    assert await ask(ca, ca) is ok
    assert await ask(other_ca, ca) is unavailable
    assert await ask(ca, other_ca) is unavailable
    files.put_certificate(other_ca)
    assert await ask(other_ca, ca) is ok
    assert await ask(ca, ca) is unavailable
    put(files.client_ca, other_ca.cert_pem.bytes())
    assert await ask(other_ca, other_ca) is ok
    assert await ask(other_ca, ca) is unavailable
    for path in (files.certificate, files.key, files.client_ca):
        put(path, b"broken")
        assert await ask(other_ca, other_ca) is ok
    files.put_certificate(ca)
    put(files.client_ca, ca.cert_pem.bytes())
    assert await ask(ca, ca) is ok

"""The server's TLS: its certificate, and the authorities whose certificates clients must show."""

import logging
import math
import re
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import grpc

from gateway import metrics
from gateway.file_watch import FileWatch
from gateway.settings import Settings

logger = logging.getLogger(__name__)

_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
# Tags of ASN.1.
_VERSION, _UTC_TIME = 0xA0, 0x17


@dataclass(frozen=True, slots=True)
class Credentials:
    """The server's files as the two libraries take them."""

    for_grpc: grpc.ServerCertificateConfiguration
    for_http: ssl.SSLContext


class Certificates:
    """The server's PEM files. They are read again when they change: certificates expire while servers run."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self._watch = FileWatch(certificate, key, *filter(None, [client_ca]))
        self._lock = threading.Lock()

    def read(self) -> "Credentials":
        """Read the files; raise ValueError, a sentence that names the file, if they are not usable."""
        pair = self._read(self._key), self._read(self._certificate)
        client_ca = None if self._client_ca is None else self._read(self._client_ca)
        # gRPC accepts anything, and then fails each handshake without saying why.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # The empty password: without it OpenSSL asks at the terminal for that of an encrypted key.
            context.load_cert_chain(self._certificate, self._key, password="")
        except (OSError, ValueError) as error:
            raise ValueError(
                f"tls_certificate {self._certificate} and tls_key {self._key} are not a certificate chain "
                f"and its unencrypted private key, both PEM: {error}"
            ) from error
        if self._client_ca is not None:
            try:
                context.load_verify_locations(self._client_ca)
            except (OSError, ValueError) as error:
                raise ValueError(
                    f"tls_client_ca {self._client_ca} has no PEM certificates: {error}"
                ) from error
            context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        metrics.CERTIFICATE_EXPIRY.labels(self._certificate).set(expires_at(pair[1]))
        return Credentials(grpc.ssl_server_certificate_configuration([pair], client_ca), context)

    def read_if_changed(self) -> "Credentials | None":
        """Return the new credentials, or None if no file has changed or the new files are not usable.

        Called before each handshake, of gRPC's in its own threads.
        """
        with self._lock:
            if not self._watch.has_changed():
                return None
            try:
                credentials = self.read()
            except ValueError as error:
                # This also happens after a new certificate is written and before its key is.
                metrics.RELOADS.labels("certificates", "failed").inc()
                logger.error("%s; the previous certificate stays in use", error)
                return None
        metrics.RELOADS.labels("certificates", "ok").inc()
        logger.info("the TLS files have changed: new connections use %s", self._certificate)
        return credentials

    @staticmethod
    def _read(path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise ValueError(f"cannot read {path} for TLS: {error.strerror}") from error


def expires_at(chain: bytes) -> float:
    """Return when the first certificate of a PEM file expires, in seconds since 1970; NaN if it is not found.

    Python's ssl does not tell this of a certificate of one's own.
    """
    try:
        pem = _CERTIFICATE.search(chain.decode("latin-1"))
        ((_, certificate),) = _elements(ssl.PEM_cert_to_DER_cert(pem[0] if pem else ""))
        # RFC 5280: serial number, signature, issuer, validity; in front of them the version, if any.
        (_, signed), *_ = _elements(certificate)
        fields = [content for tag, content in _elements(signed) if tag != _VERSION]
        _, (tag, time) = _elements(fields[3])
        year = "%y" if tag == _UTC_TIME else "%Y"
        return datetime.strptime(time.decode(), f"{year}%m%d%H%M%S%z").timestamp()
    except (ValueError, IndexError):
        return math.nan


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the ASN.1 elements that lie one behind the other: the tag of each, and its content."""
    while der:
        tag, length, start = der[0], der[1], 2
        if length & 0x80:  # the length has so many bytes
            start += length & 0x7F
            length = int.from_bytes(der[2:start], "big")
        yield tag, der[start : start + length]
        der = der[start + length :]


def server_credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """Return gRPC's credentials, or None without TLS; raise ValueError for wrong settings or files."""
    certificates = _certificates(settings)
    if certificates is None:
        return None

    def read_if_changed() -> grpc.ServerCertificateConfiguration | None:
        renewed = certificates.read_if_changed()
        return None if renewed is None else renewed.for_grpc

    return grpc.dynamic_ssl_server_credentials(
        certificates.read().for_grpc,
        read_if_changed,  # type: ignore[arg-type]  # gRPC's documentation allows None
        require_client_authentication=settings.tls_client_ca is not None,
    )


def http_context(settings: Settings) -> ssl.SSLContext | None:
    """Return what `server_credentials` does, for a server of HTTP."""
    certificates = _certificates(settings)
    return None if certificates is None else _RenewedContext(certificates)


class _RenewedContext(ssl.SSLContext):
    """A context for asyncio's servers, which have one for good: each handshake uses the latest files."""

    def __new__(cls, certificates: Certificates) -> "_RenewedContext":
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, certificates: Certificates) -> None:
        self._certificates = certificates
        self._latest = certificates.read().for_http

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """Begin a handshake. This is all that asyncio does with a context."""
        if renewed := self._certificates.read_if_changed():
            self._latest = renewed.for_http
        return self._latest.wrap_bio(*arguments, **options)


def _certificates(settings: Settings) -> Certificates | None:
    certificate, key, client_ca = settings.tls_certificate, settings.tls_key, settings.tls_client_ca
    if certificate is not None and key is not None:
        return Certificates(certificate, key, client_ca)
    if certificate or key:
        raise ValueError("tls_certificate and tls_key go together: one of them is not set")
    if client_ca is not None:
        raise ValueError("tls_client_ca needs tls_certificate and tls_key: certificates are shown over TLS")
    return None

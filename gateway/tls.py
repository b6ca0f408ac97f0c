"""TLS at the door: the server's certificate, and whose certificates it asks of clients."""

import logging
import ssl
import threading
from pathlib import Path

import grpc

from gateway.file_watch import FileWatch
from gateway.settings import Settings

logger = logging.getLogger(__name__)


class Certificates:
    """PEM files of the server, read again when they change: certificates live shorter than servers."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self._watch = FileWatch(certificate, key, *filter(None, [client_ca]))
        self._lock = threading.Lock()

    def read(self) -> grpc.ServerCertificateConfiguration:
        """Raises ValueError, a sentence that names the file, where they cannot serve."""
        pair = self._read(self._key), self._read(self._certificate)
        client_ca = None if self._client_ca is None else self._read(self._client_ca)
        # gRPC takes anything, and then fails each handshake without a word on what is wrong.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # With an empty password: OpenSSL would ask for that of an encrypted key at the terminal.
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
        return grpc.ssl_server_certificate_configuration([pair], client_ca)

    def read_if_changed(self) -> grpc.ServerCertificateConfiguration | None:
        """What gRPC asks before each handshake, from threads of its own. None: as before."""
        with self._lock:
            if not self._watch.has_changed():
                return None
            try:
                configuration = self.read()
            except ValueError as error:
                # Seen also between the writing of a new certificate and that of its key.
                logger.error("%s; the certificate of before stays in use", error)
                return None
        logger.info("%s, or a file beside it, has changed: new connections use it", self._certificate)
        return configuration

    @staticmethod
    def _read(path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise ValueError(f"cannot read {path} for TLS: {error.strerror}") from error


def server_credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """What the server shows and asks; None: no TLS. Raises ValueError where settings or files are wrong."""
    certificate, key, client_ca = settings.tls_certificate, settings.tls_key, settings.tls_client_ca
    if certificate is None or key is None:
        if certificate or key:
            raise ValueError("tls_certificate and tls_key go together: one of them is not set")
        if client_ca is not None:
            raise ValueError("tls_client_ca needs tls_certificate and tls_key: clients show theirs over TLS")
        return None
    certificates = Certificates(certificate, key, client_ca)
    return grpc.dynamic_ssl_server_credentials(
        certificates.read(),
        certificates.read_if_changed,  # type: ignore[arg-type]  # may return None, by gRPC's documentation
        require_client_authentication=client_ca is not None,
    )

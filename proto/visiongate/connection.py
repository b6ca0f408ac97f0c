"""How a client reaches a server: encrypted or not, and what it shows there."""

import ipaddress
import os
import re
import ssl
from pathlib import Path

import grpc

# A path, or the bytes of such a file.
Pem = str | os.PathLike[str] | bytes

# gRPC's names of addresses that need no name service, or the usual one.
SCHEME = re.compile(r"^(dns:(///)?|ipv4:|ipv6:)")
HOST_AND_PORT = re.compile(r"\[?([^][]+?)\]?(:\d+)?")
UNIX_SOCKETS = "unix:", "unix-abstract:"
# gRPC's own exception would quote the key.
HEADER_TEXT = re.compile("[!-~]+")


class Connection:
    """What a channel needs: its credentials (None: unencrypted), and the metadata of every call.

    `Client` says what the arguments mean. Raises ValueError where they do not go together.
    """

    def __init__(
        self,
        address: str,
        *,
        api_key: str | None,
        tls: bool | None,
        root_certificates: Pem | None,
        client_certificate: Pem | None,
        client_key: Pem | None,
    ) -> None:
        self.credentials: grpc.ChannelCredentials | None = None
        self.metadata: tuple[tuple[str, str], ...] = ()
        if (client_certificate is None) != (client_key is None):
            raise ValueError("client_certificate and client_key go together: give both or neither")
        files = root_certificates, client_key, client_certificate
        if tls or (tls is None and any(file is not None for file in files)):
            roots, key, chain = (None if file is None else _read(file) for file in files)
            self.credentials = grpc.ssl_channel_credentials(roots or _machine_roots(), key, chain)
        elif any(file is not None for file in files):
            raise ValueError("certificates are for TLS: leave out tls=False")
        if api_key is None:
            return
        if not HEADER_TEXT.fullmatch(api_key):
            raise ValueError("the API key is empty, or has blanks, line ends or other than ASCII in it")
        if self.credentials is None and tls is None and not _is_local(address):
            raise ValueError(
                f"the API key would go to {address} unencrypted: use TLS (tls=True, --tls), or say that the "
                "network itself keeps it secret (tls=False, --no-tls)"
            )
        self.metadata = (("authorization", f"Bearer {api_key}"),)


def _read(file: Pem) -> bytes:
    data = file if isinstance(file, bytes) else Path(file).read_bytes()
    if b"-----BEGIN " not in data:
        raise ValueError(f"{'the data given' if isinstance(file, bytes) else file} is not PEM")
    return data


def _machine_roots() -> bytes | None:
    """The certificate authorities that this machine trusts; None: those that gRPC finds.

    By itself gRPC in Python takes those that it brings, and would not know a company's own.
    """
    file = ssl.get_default_verify_paths().cafile
    if file is None or "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH" in os.environ:
        return None
    return Path(file).read_bytes()


def _is_local(address: str) -> bool:
    """Whether all that is sent stays on this machine."""
    if address.startswith(UNIX_SOCKETS):
        return True
    return all(_is_loopback(part) for part in SCHEME.sub("", address).split(","))


def _is_loopback(address: str) -> bool:
    match = HOST_AND_PORT.fullmatch(address)
    host = match[1] if match else ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

"""How a client reaches a server: where it is, encrypted or not, and what the client shows there."""

import os
import re
import ssl
from pathlib import Path

import grpc

from visiongate.address import DEFAULT_ADDRESS, parse_address

# A path, or the bytes of such a file.
Pem = str | os.PathLike[str] | bytes
ChannelOptions = tuple[tuple[str, int | str], ...]

# Keys are checked here, because gRPC's own exception would quote the key.
HEADER_TEXT = re.compile("[!-~]+")
TRUE, FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")

OPTIONS: ChannelOptions = (
    # Answers with many masks pass gRPC's default of 4 MiB.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # If a server closes an old connection before it has seen a call, gRPC sends the call again, but only if
    # it kept the request. By default it keeps 256 KiB.
    ("grpc.per_rpc_retry_buffer_size", 2**30),
    # With these a call to a host that has vanished fails within a minute, and not after 15 minutes.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A server that was away is found again within about a second. By default gRPC pauses for up to two
    # minutes, and resolves a name anew after 30 seconds.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
    # This is also the least time that an attempt to connect has: a second would be too short for a far
    # server.
    ("grpc.min_reconnect_backoff_ms", 5000),
    # Channels share no connections: a forked process must not use its parent's, and a new client must not
    # inherit an old one's pauses.
    ("grpc.use_local_subchannel_pool", 1),
)
NO_PROXY: ChannelOptions = (
    ("grpc.enable_http_proxy", 0),
    # GRPC_ADDRESS_HTTP_PROXY is another way to name a proxy, which the option above does not turn off.
    ("grpc.address_http_proxy_enabled_addresses", ""),
)
# The variables in which gRPC looks for a proxy, in its order. It reads no other upper-case variable.
PROXY_VARIABLES = "grpc_proxy", "https_proxy", "http_proxy", "GRPC_ADDRESS_HTTP_PROXY"


class Connection:
    """What a channel needs: target, credentials (None: unencrypted), options, and the metadata of its calls.

    `BaseClient` says what the arguments mean. Those that are None are read from the environment. Raises
    ValueError if arguments do not go together, OSError if a file cannot be read.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        api_key: str | None = None,
        tls: bool | None = None,
        root_certificates: Pem | None = None,
        client_certificate: Pem | None = None,
        client_key: Pem | None = None,
    ) -> None:
        if tls is not None and not isinstance(tls, bool):
            raise ValueError(f"tls is {tls!r}: give True, False or None")
        if address is not None:
            self.address = parse_address(address, "the server's address")
        else:
            self.address = parse_address(_variable("SERVER") or DEFAULT_ADDRESS, _name("SERVER"))
        if tls is not False:
            # tls=False also turns off the certificates that the environment names.
            tls = _flag("TLS") if tls is None else tls
            root_certificates = _variable("CA") if root_certificates is None else root_certificates
            if client_certificate is None and client_key is None:
                client_certificate, client_key = _variable("CERT"), _variable("CERT_KEY")
        self.credentials = _credentials(tls, root_certificates, client_certificate, client_key)
        self.metadata: tuple[tuple[str, str], ...] = ()
        self._take_key(api_key, tls)
        # Proxies are for other machines: 127.0.0.1 would be the proxy itself. And an unencrypted key goes
        # straight to the server, because a proxy on the way could read it.
        goes_direct = self.address.is_local or (bool(self.metadata) and self.credentials is None)
        self.options = OPTIONS + (NO_PROXY if goes_direct else ())
        self.proxy_variable = "" if goes_direct else next(filter(os.environ.get, PROXY_VARIABLES), "")
        # Whether a server has ever answered there.
        self.reached = False

    def _take_key(self, api_key: str | None, tls: bool | None) -> None:
        which = "the API key"
        if api_key is None:
            api_key, which = _variable("API_KEY"), f"the API key of {_name('API_KEY')}"
        if api_key is None:
            return
        if not isinstance(api_key, str) or not HEADER_TEXT.fullmatch(api_key):
            raise ValueError(f"{which} is empty, or has blanks, line ends or other than ASCII in it")
        if self.credentials is None and tls is None and not self.address.is_local:
            raise ValueError(
                f"{which} would go to {self.address.text} unencrypted: use TLS (tls=True, --tls), or say "
                "that the network itself keeps it secret (tls=False, --no-tls)"
            )
        self.metadata = (("authorization", f"Bearer {api_key}"),)


def _name(variable: str) -> str:
    return f"VISIONGATE_{variable}"


def _variable(variable: str) -> str | None:
    """Return an environment variable; an empty one counts as unset."""
    return os.environ.get(_name(variable)) or None


def _flag(variable: str) -> bool | None:
    text = _variable(variable)
    if text is None:
        return None
    if text.lower() not in TRUE + FALSE:
        raise ValueError(f"{_name(variable)} is {text!r}: give 1 or 0")
    return text.lower() in TRUE


def _credentials(
    tls: bool | None, roots: Pem | None, certificate: Pem | None, key: Pem | None
) -> grpc.ChannelCredentials | None:
    if (certificate is None) != (key is None):
        raise ValueError("client_certificate and client_key go together: give both or neither")
    files = {"root_certificates": roots, "client_key": key, "client_certificate": certificate}
    named = {name: file for name, file in files.items() if file is not None}
    if tls is False and named:
        raise ValueError("certificates are for TLS: leave out tls=False (--no-tls, VISIONGATE_TLS=0)")
    if not tls and not named:
        return None
    pems = {name: _read(name, file) for name, file in named.items()}
    return grpc.ssl_channel_credentials(
        pems.get("root_certificates") or _machine_roots(),
        pems.get("client_key"),
        pems.get("client_certificate"),
    )


def _read(name: str, file: Pem) -> bytes:
    if not isinstance(file, bytes | str | os.PathLike):
        raise ValueError(f"{name} is a path or PEM bytes, not {type(file).__name__}")
    data = file if isinstance(file, bytes) else Path(file).read_bytes()
    if b"-----BEGIN " not in data:
        raise ValueError(f"{name}: {'the data given' if isinstance(file, bytes) else file} is not PEM")
    return data


def _machine_roots() -> bytes | None:
    """Return the certificate authorities that this machine trusts; None: those that gRPC finds.

    By default gRPC in Python trusts only those that it brings, and not a company's own.
    """
    file = ssl.get_default_verify_paths().cafile
    if file is None or "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH" in os.environ:
        return None
    return Path(file).read_bytes()

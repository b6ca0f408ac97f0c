"""Addresses of servers: from what people write to what gRPC takes."""

import ipaddress
import re
from dataclasses import dataclass

DEFAULT_PORT = 50051
DEFAULT_ADDRESS = f"127.0.0.1:{DEFAULT_PORT}"

_WANTED = f"give host or host:port, such as {DEFAULT_ADDRESS} or vision.example.com:443"
_SOCKETS = "unix:", "unix-abstract:"
# Names of servers without host and port, which gRPC itself reads.
_OTHER_SCHEMES = ("xds:",)
_NAME_SERVICE = re.compile(r"dns:(//[^/]*/)?")
_ADDRESS_LISTS = "ipv4:", "ipv6:"
_URL = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_BRACKETED = re.compile(r"\[([^][]*)\](?::(.*))?", re.DOTALL)
_HOST = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class Address:
    """A server's address with its port, as gRPC takes it and as messages show it.

    `is_local` says whether what is sent there stays on this machine.
    """

    text: str
    is_local: bool


def parse_address(text: str, name: str) -> Address:
    """Read an address. The default port is 50051.

    Takes host, host:port, an IPv6 address with or without brackets, a unix socket (`unix:/path`), and gRPC's
    schemes dns, ipv4, ipv6 and xds. Raises ValueError, which calls the argument `name`.
    """
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{name} is empty: {_WANTED}" if text == "" else f"{name} is {text!r}: {_WANTED}")
    if text.startswith(_SOCKETS):
        return Address(text, is_local=True)
    if text.startswith(_OTHER_SCHEMES):
        return Address(text, is_local=False)
    try:
        if text.startswith(_ADDRESS_LISTS):
            scheme, _, parts = text.partition(":")
            hosts = [_split(part) for part in parts.split(",")]
            whole = f"{scheme}:{','.join(join(*host) for host in hosts)}"
            return Address(whole, all(is_local(host) for host, _ in hosts))
        prefix = match[0] if (match := _NAME_SERVICE.match(text)) else ""
        host, port = _split(text.removeprefix(prefix))
    except ValueError as error:
        raise ValueError(f"{name} is {text!r}, and {error}: {_WANTED}") from None
    # A name server that the address itself names may resolve "localhost" to anything.
    asks_elsewhere = prefix.removeprefix("dns:").strip("/") != ""
    return Address(prefix + join(host, port), is_local(host) and not asks_elsewhere)


def _split(text: str) -> tuple[str, int]:
    """Return the host without brackets, and the port. The text of ValueError is a part of a sentence."""
    if url := _URL.match(text):
        raise ValueError(f"gRPC has no {url[1]}:// in front")
    if bracketed := _BRACKETED.fullmatch(text):
        host, port = bracketed[1], bracketed[2]
        if not _is_ip(host, 6):
            raise ValueError("what is in brackets is not an IPv6 address")
    elif _is_ip(text, 6):
        host, port = text, None
    else:
        host, colon, after = text.partition(":")
        port = after if colon else None
        if not _HOST.fullmatch(host):
            raise ValueError("that is not the name of a host")
    if port is None:
        return host, DEFAULT_PORT
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise ValueError("the port is not a number from 1 to 65535")
    return host, int(port)


def join(host: str, port: int) -> str:
    """Write `host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_ip(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False


def is_local(host: str) -> bool:
    """Tell whether a connection to the host, written without a port, stays on this machine."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    # A connection to 0.0.0.0 or :: is one to this machine.
    inner = getattr(address, "ipv4_mapped", None) or address
    return bool(inner.is_loopback or inner.is_unspecified)

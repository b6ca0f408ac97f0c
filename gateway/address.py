"""Hosts to listen on, and Triton's addresses: as people write them, and as sockets and gRPC take them.

The client's `parse_address` does not fit Triton: to an address without a port it adds the gateway's.
"""

import ipaddress
import re

from visiongate.address import join

_NAME = re.compile(r"(?=.*[A-Za-z_])[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
# gRPC's own ways to name servers, which it reads itself.
_SCHEMES = ("dns:", "ipv4:", "ipv6:", "unix:", "unix-abstract:", "xds:")


def checked_host(text: str) -> str:
    """Return a host without brackets; raise ValueError if it is neither a name nor an IP address."""
    host = text[1:-1] if text.startswith("[") and text.endswith("]") and ":" in text else text
    if not (is_ip_address(host) or _NAME.fullmatch(host)):
        raise ValueError("it must be the name of a host or an IP address, without a port")
    return host


def split(text: str) -> tuple[str, int]:
    """Return the host, without brackets, and the port of `host:port`; raise ValueError if it is not that."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdecimal() and 0 < int(port) <= 65535):
        raise ValueError(f"{text!r} is not host:port")
    try:
        return checked_host(host), int(port)
    except ValueError:
        raise ValueError(f"{text!r} is not host:port (an IPv6 address in brackets)") from None


def target(text: str) -> str:
    """Return what gRPC takes for `host:port`. Its own schemes, such as dns:///, stay as they are."""
    return text if text.startswith(_SCHEMES) else join(*split(text))


def is_ip_address(host: str) -> bool:
    """Return whether a host is an IP address, without brackets."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True

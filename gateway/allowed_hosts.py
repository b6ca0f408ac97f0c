"""Hosts that image URIs may name, as the setting uri_hosts lists them."""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

import idna

HTTPS_PORT = 443

_ENTRY = re.compile(r"(\[[^]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?")
_HOST = re.compile(r"[a-z0-9_-][a-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class _Rule:
    host: str
    port: int
    is_domain: bool

    def allows(self, host: str, port: int) -> bool:
        return port == self.port and (host.endswith(f".{self.host}") if self.is_domain else host == self.host)


class AllowedHosts:
    """Hosts that URIs may name: `example.com`, `example.com:8443`, or all below a domain: `.example.com`.

    Raises ValueError for an entry that is none of these.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self._rules = [_rule(entry) for entry in entries]

    def __bool__(self) -> bool:
        return bool(self._rules)

    def allow(self, host: str, port: int) -> bool:
        """Tell if a URI may name a host, given in ASCII and lower case, without brackets and final dot."""
        return any(rule.allows(host, port) for rule in self._rules)


def _rule(entry: str) -> _Rule:
    name = entry.removeprefix(".")
    parts = _ENTRY.fullmatch(name)
    host = _canonical(parts[1]) if parts else ""
    port = int(parts[2] or HTTPS_PORT) if parts else 0
    if not host or not 0 < port <= 65535:
        raise ValueError(f"{entry!r} is not a host (example.com), host:port, or domain (.example.com)")
    return _Rule(host, port, is_domain=name != entry)


def _canonical(host: str) -> str:
    """Return a host as httpx writes that of a URI, which the host is compared with; "" if it is not a host.

    httpx itself would do, but takes half a second to import.
    """
    try:
        if host.startswith("["):
            ipaddress.IPv6Address(host[1:-1])
            return host[1:-1].lower()
        ascii_host = host.lower() if host.isascii() else idna.encode(host.lower()).decode("ascii")
        if re.fullmatch(r"[0-9]+(\.[0-9]+){3}", ascii_host):
            ipaddress.IPv4Address(ascii_host)
    except ValueError:  # idna.IDNAError is one
        return ""
    ascii_host = ascii_host.removesuffix(".")
    return ascii_host if _HOST.fullmatch(ascii_host) else ""

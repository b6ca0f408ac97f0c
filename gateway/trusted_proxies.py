"""Proxies whose word counts for where a call comes from, as the setting trusted_proxies lists them."""

import ipaddress
from collections.abc import Iterable, Mapping

FORWARDED_FOR = "x-forwarded-for"


class TrustedProxies:
    """Networks of proxies. Raises ValueError for a text that is neither an address nor a network."""

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._networks = [_network(text) for text in networks]

    def caller(self, address: str, headers: Mapping[str, str]) -> str:
        """Return the address of a call's caller, given that of its connection and its headers.

        Each proxy adds to X-Forwarded-For, at the end, where it got the request from. So it is read from the
        end, as long as what has been found is a trusted proxy. Callers can write anything before that.
        """
        if not self._has(address):
            return address
        for entry in reversed(headers.get(FORWARDED_FOR, "").split(",")):
            if (forwarded := _ip(entry.strip())) is None:
                break
            address = str(forwarded)
            if not self._has(address):
                break
        return address

    def _has(self, address: str) -> bool:
        ip = _ip(address) if self._networks else None
        return ip is not None and any(ip in network for network in self._networks)


NO_PROXIES = TrustedProxies()


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise ValueError(f"{text!r} is no IP address and no network, such as 10.0.0.0/8") from None


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return None
    return ip.ipv4_mapped or ip if isinstance(ip, ipaddress.IPv6Address) else ip

"""Triton's addresses: one server each, also where a name stands for several."""

import asyncio
import socket
from dataclasses import dataclass
from typing import Any

from gateway import address
from visiongate.address import join

_OWN_LOOKUP = ("dns:///", "dns:", "ipv4:", "ipv6:")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one server listens.

    name: for the log and the metrics, `host:port` with an IP address. target: for gRPC. origin: the part of
    the setting that it comes from. is_ipv6: whether its address is of IPv6. is_here: whether its address is
    this host's.
    """

    name: str
    target: str
    origin: str
    is_ipv6: bool = False
    is_here: bool = False


async def resolve(addresses: str) -> list[Endpoint]:
    """Look up the servers of the setting `triton`: addresses after commas, each of one server or of several.

    Raises OSError if one of the names is not known. Schemes that gRPC alone understands, such as unix:, stay
    one server each.
    """
    found: dict[str, Endpoint] = {}
    for origin in (part.strip() for part in addresses.split(",")):
        for endpoint in await _resolve(origin):
            found.setdefault(endpoint.name, endpoint)
    return list(found.values())


async def _resolve(origin: str) -> list[Endpoint]:
    scheme = next((scheme for scheme in _OWN_LOOKUP if origin.startswith(scheme)), "")
    try:
        host, port = address.split(origin.removeprefix(scheme))
    except ValueError:
        return [Endpoint(origin, origin, origin)]
    loop = asyncio.get_running_loop()
    endpoints = []
    for *_, sockaddr in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        name = join(str(sockaddr[0]), port)
        is_ipv6 = ":" in str(sockaddr[0])
        target = f"ipv{6 if is_ipv6 else 4}:{name}"
        endpoints.append(Endpoint(name, target, origin, is_ipv6, _is_here(sockaddr)))
    return endpoints


def _is_here(sockaddr: Any) -> bool:
    """Return whether a program of this host could listen there."""
    family = socket.AF_INET if len(sockaddr) == 2 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((sockaddr[0], 0, *sockaddr[2:]))
    except OSError:
        return False
    return True

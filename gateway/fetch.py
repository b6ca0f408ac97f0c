"""Images by URI: fetched over HTTPS from the allowed hosts, never from the server's own network."""

import asyncio
import contextlib
import ipaddress
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence

import httpx

from gateway.allowed_hosts import HTTPS_PORT, AllowedHosts

logger = logging.getLogger(__name__)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]

REDIRECTS = frozenset({301, 302, 303, 307, 308})

_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class UriError(ValueError):
    """The server refuses the URI or the file it names. The message is for the caller, about the URI."""


class FetchError(Exception):
    """The URI's host did not deliver. The message is for the caller, and reveals nothing of the network."""


def is_public(address: Address) -> bool:
    """Tell if an address belongs to the internet, and not to a private network that the server may be in."""
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not address.is_multicast
    if address.ipv4_mapped is not None:
        return is_public(address.ipv4_mapped)
    if address in _NAT64:
        return is_public(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    # `is_global` alone takes ::7f00:1 (an old way to write 127.0.0.1) for global. 6to4 and Teredo addresses
    # carry an IPv4 address too. Both are retired, so no host is lost.
    is_tunnel = address.sixtofour is not None or address.teredo is not None
    return address in _GLOBAL_UNICAST and address.is_global and not is_tunnel


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host; raise OSError or UnicodeError if it has none."""
    entries = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in entries))


class Fetcher:
    """Fetches files of at most `max_bytes` bytes. `timeout_s` is for a whole fetch, redirects included.

    It trusts the certificate authorities that SSL_CERT_FILE or SSL_CERT_DIR names, by default certifi's.
    """

    def __init__(
        self,
        hosts: AllowedHosts,
        *,
        max_bytes: int,
        timeout_s: float,
        max_redirects: int,
        resolve: Resolver = resolve,
        is_allowed: Callable[[Address], bool] = is_public,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._hosts = hosts
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._max_redirects = max_redirects
        self._resolve = resolve
        self._is_allowed = is_allowed
        self._ssl_context = ssl_context or httpx.create_ssl_context()

    async def fetch(self, uri: str) -> bytes:
        """Return the file that a URI names; raise UriError or FetchError."""
        if not self._hosts:
            raise UriError("is not taken by this server: send the image itself")
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._follow(uri)
        except TimeoutError as error:
            raise FetchError(f"took longer than {self._timeout_s:g} seconds to fetch") from error

    async def _follow(self, uri: str) -> bytes:
        try:
            url = httpx.URL(uri)
        except httpx.InvalidURL as error:
            raise UriError("is not a URI") from error
        self._check(url, "")
        for _ in range(self._max_redirects + 1):
            answer = await self._get(url)
            if isinstance(answer, bytes):
                return answer
            self._check(answer, "redirects to a URI that ")
            url = answer
        raise FetchError(f"redirects more than {self._max_redirects} times")

    def _check(self, url: httpx.URL, subject: str) -> None:
        """Raise UriError for a URI that is not allowed. The message quotes none: redirects may be secret."""
        if url.scheme != "https":
            raise UriError(f"{subject}does not start with https://")
        if url.userinfo:
            raise UriError(f"{subject}has a user name or password")
        if not self._hosts.allow(_host(url), _port(url)):
            raise UriError(f"{subject}names a host or port that this server does not allow")

    async def _get(self, url: httpx.URL) -> bytes | httpx.URL:
        """Return the file, or the URI that the host redirects to."""
        host = _host(url)
        addresses = await self._addresses(host, _port(url))
        # An address that does not answer must leave time for the others.
        timeouts = {"connect": self._timeout_s / len(addresses)}
        failure: httpx.TransportError | None = None
        for address in addresses:
            try:
                return await self._get_from(address, url, timeouts)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                logger.info("image.uri: %s at %s does not connect: %r", host, address, error)
                failure = error
            except httpx.TransportError as error:
                logger.info("image.uri: %s at %s failed: %r", host, address, error)
                raise FetchError("cannot be fetched: its host broke off") from error
        raise FetchError("cannot be fetched: its host does not connect securely") from failure

    async def _addresses(self, host: str, port: int) -> Sequence[Address]:
        """Return all addresses of the host; raise FetchError if one is not public: it might be used."""
        try:
            # UnicodeError comes from Python's codec, for a label that is empty or too long.
            addresses = [ipaddress.ip_address(address) for address in await self._resolve(host, port)]
        except (OSError, UnicodeError) as error:
            logger.info("image.uri: %s has no address: %r", host, error)
            addresses = []
        forbidden = [str(address) for address in addresses if not self._is_allowed(address)]
        if forbidden:
            logger.warning("image.uri: %s has addresses that are not public: %s", host, ", ".join(forbidden))
        if forbidden or not addresses:
            # The same words for both: a caller must not learn which names exist in the server's network.
            raise FetchError("cannot be fetched: its host has no public address")
        return addresses

    async def _get_from(
        self, address: Address, url: httpx.URL, timeouts: dict[str, float]
    ) -> bytes | httpx.URL:
        host = _host(url)
        named = url.copy_with(host=host)
        request = httpx.Request(
            "GET",
            # The address that was checked. A name would be looked up again, and might then lead elsewhere.
            named.copy_with(host=str(address)),
            headers={
                "Host": named.netloc.decode("ascii"),
                "User-Agent": "visiongate",
                "Accept": "image/*",
                "Accept-Encoding": "identity",
            },
            # The certificate must be for `sni_hostname`.
            extensions={"sni_hostname": host, "timeout": timeouts},
        )
        # A transport, not a client: it has no cookies and no proxies, and follows no redirects. One for each
        # request: it keeps connections by address, and would reuse one for a name that its certificate is not
        # for.
        async with httpx.AsyncHTTPTransport(verify=self._ssl_context, trust_env=False) as transport:
            response = await transport.handle_async_request(request)
            async with contextlib.aclosing(response):
                if response.status_code in REDIRECTS and "Location" in response.headers:
                    return _redirect(url, response.headers["Location"])
                return await self._read(response)

    async def _read(self, response: httpx.Response) -> bytes:
        if response.status_code != httpx.codes.OK:
            raise FetchError(f"cannot be fetched: its host answers with status {response.status_code}")
        if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            raise FetchError("cannot be fetched: its host sends it compressed, though asked not to")
        length = int(response.headers.get("Content-Length", 0))
        if length > self._max_bytes:
            raise UriError(f"names a file of {length} bytes; the limit is {self._max_bytes}")
        data = bytearray()
        async for chunk in response.aiter_raw():
            data += chunk
            if len(data) > self._max_bytes:
                raise UriError(f"names a file of more bytes than the limit of {self._max_bytes}")
        return bytes(data)


def _host(url: httpx.URL) -> str:
    return url.raw_host.decode("ascii").removesuffix(".")


def _port(url: httpx.URL) -> int:
    return HTTPS_PORT if url.port is None else url.port


def _redirect(url: httpx.URL, location: str) -> httpx.URL:
    try:
        return url.join(location)
    except (httpx.InvalidURL, ValueError) as error:  # ValueError comes from urllib, for broken brackets
        raise FetchError("redirects to what is not a URI") from error

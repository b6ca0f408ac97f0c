"""Who may ask over HTTP: no web page may drive a server that its visitor's browser can reach.

A form that any page sends needs no permission of the server, and whoever owns a name can let it point to an
address inside another's network. So a browser's requests must come from a page of this server, and must name
the server by a name that nobody else can own.
"""

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

import grpc
from starlette.datastructures import Headers

from gateway.address import is_ip_address
from gateway.http.statuses import HttpError

ANY = "*"
_NAME = re.compile(r"[\w.:%-]+", re.ASCII)


class Door:
    """Checks the headers Host and Origin of requests.

    hosts: further names of this server; one that begins with a dot stands for all below it.
    origins: other pages that may use it, such as https://app.example.com.
    """

    def __init__(self, hosts: Iterable[str], origins: Iterable[str]) -> None:
        self._hosts = [host.lower().rstrip(".") for host in hosts]
        self._origins = {origin.lower().rstrip("/") for origin in origins}

    def check(self, headers: Headers) -> None:
        """Raise HttpError for a request that is not to be answered."""
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_own(hosts[0]):
            raise HttpError(
                403,
                grpc.StatusCode.PERMISSION_DENIED,
                "host: this server is not called by that name; the setting http_hosts says by which it is",
                reason="FOREIGN_HOST",
            )
        for origin in headers.getlist("origin"):
            if not self.allows(origin) and not _is_same(origin, hosts[0]):
                raise HttpError(
                    403,
                    grpc.StatusCode.PERMISSION_DENIED,
                    "origin: no page of another server may use this one, if http_origins does not name it",
                    reason="FOREIGN_ORIGIN",
                )

    def allows(self, origin: str) -> bool:
        """Return whether the settings let pages of another server use this one."""
        return ANY in self._origins or origin.lower() in self._origins

    def _is_own(self, host: str) -> bool:
        name = _name(host)
        if not name:
            return False
        if ANY in self._hosts or "." not in name or name.endswith(".localhost") or is_ip_address(name):
            return True
        return any(name == own or (own.startswith(".") and name.endswith(own)) for own in self._hosts)


def _name(host: str) -> str:
    """Return the name or address in a header Host; empty if there is none in it."""
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""
    return name if _NAME.fullmatch(name) else ""


def _is_same(origin: str, host: str) -> bool:
    """Return whether a page comes from the server that it asks. A proxy may have taken off its TLS."""
    try:
        page, asked = urlsplit(origin), urlsplit(f"{urlsplit(origin).scheme}://{host}")
        default = {"http": 80, "https": 443}.get(page.scheme)
        return default is not None and (page.hostname, page.port or default) == (
            asked.hostname,
            asked.port or default,
        )
    except ValueError:
        return False

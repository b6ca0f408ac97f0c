"""The way from the HTTP front to the gateway of the same process: gRPC on a socket without a file.

Calls that come this way are guarded as all others are. Whoever else on this machine finds the socket lacks
the token, and is refused. The front says whom it calls for: limits and log lines are about that caller.
"""

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

import grpc

from gateway.errors import StatusError

_TOKEN, _PEER = "x-visiongate-loopback", "x-visiongate-peer"


@dataclass(frozen=True, slots=True)
class Loopback:
    """A socket of Linux' abstract namespace, which needs no folder, and the token of those who may use it."""

    address: str = field(default_factory=lambda: f"unix-abstract:visiongate-{secrets.token_hex(8)}")
    token: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    def metadata(self, peer: str) -> tuple[tuple[str, str], ...]:
        """Return what a call brings along that is made for `peer`, in gRPC's words: ipv4:10.0.0.7:52114."""
        return (_TOKEN, self.token), (_PEER, peer)

    def check(self, metadata: Mapping[str, str]) -> None:
        """Raise StatusError for a call on the socket that lacks the token."""
        if not self._has_token(metadata):
            raise StatusError(
                grpc.StatusCode.PERMISSION_DENIED, "this socket is for the server's own HTTP front"
            )

    def peer(self, metadata: Mapping[str, str]) -> str:
        """Return whom a call on the socket is made for; empty for one without the token."""
        return metadata.get(_PEER, "") if self._has_token(metadata) else ""

    def _has_token(self, metadata: Mapping[str, str]) -> bool:
        return hmac.compare_digest(metadata.get(_TOKEN, "").encode(), self.token.encode())


def is_loopback(peer: str) -> bool:
    """Return whether a connection is one of such a socket, by gRPC's name for its other end."""
    return peer.startswith("unix")

"""Failed TLS handshakes: why, and whose.

gRPC says why in a line on standard error. Whose it was, it says only where it traces its handshakes, which
`visiongate_command` asks of servers with TLS. Then there are many more lines.
"""

import os
import re
from urllib.parse import unquote

from gateway import metrics

_FAILURE = re.compile(r"Handshake failed with error .*?(?:OPENSSL_internal:(?P<reason>\w+)|$)")
# The words between are on lines of their own.
_TRACED_FAILURE = "error=UNKNOWN: Ssl handshake failed"
_TRACED_PEER = re.compile(r"shutdown=.*endpoint_peer_address=(?P<peer>[^,}]+)")
_TRACE = re.compile(
    r"\] (handshake_manager |CallNextHandshakerLocked: |handshake manager |gRPC Tracers: )"
    r"|^=== Source Location Trace|^src/core/|^shutdown="
)
_NO_TLS = "the client speaks no TLS"
_MEANINGS = {
    "HTTP_REQUEST": _NO_TLS,
    "HTTPS_PROXY_REQUEST": _NO_TLS,
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client showed no certificate",
    "CERTIFICATE_VERIFY_FAILED": "the client's certificate has expired, or is of another authority",
    "TLSV1_ALERT_UNKNOWN_CA": "the client does not know the authority of tls_certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the client refuses tls_certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "to the client, tls_certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the client refuses tls_certificate",
    "UNSUPPORTED_PROTOCOL": "the client speaks no TLS of version 1.2 or newer",
    "NO_SHARED_CIPHER": "client and server have no cipher in common",
}
REASONS = (*_MEANINGS, "OTHER")
for reason in REASONS:
    metrics.HANDSHAKE_FAILURES.labels(reason)


class Handshakes:
    """Explains gRPC's lines about handshakes, one after the other."""

    def __init__(self) -> None:
        self._is_traced = "handshaker" in os.environ.get("GRPC_TRACE", "")
        self._reason = ""
        self._waits_for_peer = False

    def explain(self, line: str) -> str | None:
        """Return a sentence for a line, empty if it says nothing, and None for other libraries' lines."""
        if match := _FAILURE.search(line):
            self._reason = match["reason"] or ""
            metrics.HANDSHAKE_FAILURES.labels(self._reason if self._reason in _MEANINGS else "OTHER").inc()
            return "" if self._is_traced else self._sentence("an unknown peer")
        if _TRACED_FAILURE in line:
            self._waits_for_peer = True
            return ""
        if self._waits_for_peer and (match := _TRACED_PEER.search(line)):
            self._waits_for_peer = False
            return self._sentence(unquote(match["peer"]).partition(":")[2])
        return "" if self._is_traced and _TRACE.search(line) else None

    def _sentence(self, peer: str) -> str:
        meaning = _MEANINGS.get(self._reason, self._reason or "no reason given")
        return f"a TLS handshake failed: {meaning}; from {peer}"

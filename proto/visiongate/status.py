"""What gRPC says of a call that failed, to a `VisiongateError` in plain words."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from visiongate.connection import Connection
from visiongate.errors import (
    ConnectionSetupError,
    MessageTooLargeError,
    UnavailableError,
    VisiongateError,
    error_kind,
)
from visiongate.options import REQUEST_ID

_DETAILS = "grpc-status-details-bin"
_TOO_LARGE = re.compile(r"larger than max \((\d+) vs\. (\d+)\)")

# gRPC's words where no connection came about, the kind of the error, and plain words. `{0}` is the address,
# `{1}` what the pattern caught. An encrypted and a plain connection that is closed at once mean two things.
_SETUP = (
    (
        r"WRONG_VERSION_NUMBER",
        "{0} speaks no TLS: leave out tls=True and certificates (--no-tls, VISIONGATE_TLS=0)",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED(?:: ([^:]+))?",
        "the certificate of {0} is not trusted ({1}): root_certificates (--ca, VISIONGATE_CA) names the "
        "authorities that sign it",
    ),
    (
        r"Hostname Verification Check failed",
        "the certificate of {0} is for another name: use the name that it is for as the address",
    ),
    (
        r"Expected SETTINGS frame as the first frame",
        "{0} is not a gRPC server: is it the port of another one?",
    ),
)
_CLOSED = r"Socket closed|Connection reset"
_CLOSED_PLAIN = "{0} closed the connection at once: if it wants TLS, use tls=True (--tls, VISIONGATE_TLS=1)"
_CLOSED_TLS = (
    "{0} closed the connection at once: if it wants a certificate from the client, give client_certificate "
    "and client_key (--cert, --cert-key)"
)
_NO_HOST = r"errors resolving|DNS resolution failed|[Dd]omain name not found|Name or service not known"
_PROXY_REFUSED = r"HTTP proxy returned response code (\d+)"
_ABSENT = (
    "nothing answers at {0}: start a server there (visiongate up), or name another one (the client's "
    "address, --server, VISIONGATE_SERVER)"
)


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed call: its error, and whether it is the server's own answer."""

    error: VisiongateError
    is_answer: bool


def read_failure(failure: grpc.RpcError, connection: Connection, method: str, request_id: str) -> Failure:
    """Read status and details of gRPC's own exception. Never raises, whatever a proxy made of them.

    `request_id` is what the call was sent with; what the server says of it counts more.
    """
    # Both the sync and the asyncio exception have these.
    call: Any = failure
    code: grpc.StatusCode = call.code() or grpc.StatusCode.UNKNOWN
    text: str = call.details() or ""
    metadata = list(call.trailing_metadata() or ())
    details = _details(metadata)
    retry = _unpack(details, error_details_pb2.RetryInfo())
    bad_request = _unpack(details, error_details_pb2.BadRequest())
    reason = _unpack(details, error_details_pb2.ErrorInfo()).reason
    told_id = _unpack(details, error_details_pb2.RequestInfo()).request_id
    kind = error_kind(code, reason)
    message = text
    if not details:
        kind, message = _in_plain_words(kind, code, text, connection, method)
    error = kind(
        code,
        message or "the server gave no reason",
        field=bad_request.field_violations[0].field if bad_request.field_violations else "",
        reason=reason,
        retry_s=_seconds(retry) if retry.HasField("retry_delay") else None,
        request_id=told_id or read_request_id(metadata) or request_id,
        grpc_message=text,
    )
    return Failure(error, is_answer=bool(details))


def read_request_id(metadata: Iterable[Any]) -> str:
    """The name that the server gave a call, from its trailing metadata; empty where it gave none."""
    return next((value for key, value in metadata if key == REQUEST_ID and isinstance(value, str)), "")


def too_large(size: int, limit: int) -> MessageTooLargeError:
    return MessageTooLargeError(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        f"the request has {_mebibytes(size)}, and the limit is {_mebibytes(limit)}: send a file instead of "
        "an array, a smaller image or fewer images a call, or raise max_message_bytes of client and server",
    )


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size} bytes"


def _in_plain_words(
    kind: type[VisiongateError], code: grpc.StatusCode, text: str, connection: Connection, method: str
) -> tuple[type[VisiongateError], str]:
    """Kind and message of a status that came without details: from gRPC itself, or a stranger on the way."""
    address = connection.address.text
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and (sizes := _TOO_LARGE.search(text)):
        return MessageTooLargeError, too_large(int(sizes[1]), int(sizes[2])).message
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return kind, f"{address} does not know {method}: it is not a visiongate server, or an older one"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        is_new = "" if connection.reached else ", nor ever before: is a visiongate server there?"
        return kind, f"{address} did not answer in time{is_new}"
    if code is not grpc.StatusCode.UNAVAILABLE:
        return kind, text
    for pattern, words in _SETUP:
        if match := re.search(pattern, text):
            caught = match[1] if match.re.groups and match[1] else "no reason given"
            return ConnectionSetupError, words.format(address, caught)
    return UnavailableError, _absence(text, connection)


def _absence(text: str, connection: Connection) -> str:
    """Why there is no connection, as far as waiting may mend it."""
    address = connection.address.text
    if refused := re.search(_PROXY_REFUSED, text):
        message = f"the proxy does not let the call through to {address} (HTTP status {refused[1]})"
    elif re.search(_NO_HOST, text):
        message = f"no host has the name in {address}, or its name service does not answer"
    elif "failed to connect" not in text:
        # There was a connection, and it broke; or a proxy speaks for a server that it does not reach.
        return f"{address} cannot answer at present: {text}"
    elif re.search(_CLOSED, text):
        message = (_CLOSED_PLAIN if connection.credentials is None else _CLOSED_TLS).format(address)
    else:
        message = _ABSENT.format(address)
    if connection.proxy_variable:
        message += f"; the variable {connection.proxy_variable} names a proxy on the way"
    return message


def _details(metadata: Iterable[Any]) -> list[any_pb2.Any]:
    """The details of a status. None where they are missing or broken.

    Not by `grpc_status.rpc_status`, which raises ValueError where a proxy changed the status or its text.
    """
    for key, value in metadata:
        if key == _DETAILS and isinstance(value, bytes):
            try:
                return list(status_pb2.Status.FromString(value).details)
            except DecodeError:
                return []
    return []


def _unpack(details: Iterable[any_pb2.Any], kind: Any) -> Any:
    """The detail of that kind, or an empty one."""
    for detail in details:
        if detail.Is(kind.DESCRIPTOR):
            try:
                detail.Unpack(kind)
            except DecodeError:
                kind.Clear()
            break
    return kind


def _seconds(retry: error_details_pb2.RetryInfo) -> float:
    # Not ToTimedelta or ToNanoseconds: they refuse what is out of their range.
    delay = retry.retry_delay
    seconds: float = delay.seconds + delay.nanos / 1e9
    return max(0.0, seconds)

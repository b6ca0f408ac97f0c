"""The status of a call, or of an item of a list, to a `VisiongateError` in plain words."""

import re
from collections.abc import Callable, Iterable
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
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_NO_REASON = "the server gave no reason"

# What gRPC says if there is no connection, and the same in plain words. `{0}` is the address, `{1}` what the
# pattern's group matched. An encrypted and a plain connection that is closed at once mean two things.
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


def read_failure(
    failure: grpc.RpcError,
    connection: Connection,
    method: str,
    request_id: str,
    *,
    list_name: str = "",
    first_index: int = 0,
) -> Failure:
    """Read status and details of gRPC's own exception. Never raises, whatever a proxy made of them.

    `request_id` is what the call was sent with. The id in the server's answer takes precedence. If the
    request's field `list_name` held a part of a list, `first_index` is the index of its first item there.
    """
    # Both the synchronous and the asyncio exception have these.
    call: Any = failure
    code: grpc.StatusCode = call.code() or grpc.StatusCode.UNKNOWN
    text: str = call.details() or ""
    metadata = list(call.trailing_metadata() or ())
    details = _details(metadata)
    request_id = read_request_id(metadata) or request_id
    if details:
        in_list = _renumbering(list_name, lambda index: first_index + index)
        return Failure(_error(code, text, details, request_id, in_list), is_answer=True)
    kind, message = _in_plain_words(error_kind(code, ""), code, text, connection, method)
    error = kind(code, message or _NO_REASON, request_id=request_id, grpc_message=text)
    return Failure(error, is_answer=False)


def read_item_error(
    status: status_pb2.Status, list_name: str, index: int, request_id: str
) -> VisiongateError:
    """Read the status of an item, the one at `index` of the whole list, which the request's field holds."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    in_list = _renumbering(list_name, lambda _: index)
    return _error(code, status.message, status.details, request_id, in_list)


def renumbered(error: VisiongateError, list_name: str, first_index: int) -> VisiongateError:
    """Return the error of an item as that of a longer list, in which its own list begins at `first_index`."""
    in_list = _renumbering(list_name, lambda index: first_index + index)
    return _reworded(error, in_list(error.message), in_list(error.field))


def as_single(error: VisiongateError, list_name: str) -> VisiongateError:
    """Return the error of an item of a list as that of an image by itself.

    Its field begins with "image", and its message does not begin with a place in the list.
    """
    path = re.compile(rf"^{list_name}\[\d+\]([\w.]*)")
    message = re.sub(rf"{path.pattern}:? *", "", error.message)
    return _reworded(error, message or error.message, path.sub(r"image\1", error.field))


def read_status(
    status: status_pb2.Status, list_name: str, first_index: int, request_id: str
) -> VisiongateError:
    """Read the error of a whole request, whose list begins at `first_index` of a longer one."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    in_list = _renumbering(list_name, lambda index: first_index + index)
    return _error(code, status.message, status.details, request_id, in_list)


def read_request_id(metadata: Iterable[Any]) -> str:
    """Return the server's name of a call, from its trailing metadata; empty if the server gave none."""
    return next((value for key, value in metadata if key == REQUEST_ID and isinstance(value, str)), "")


def too_large(size: int, limit: int) -> MessageTooLargeError:
    return MessageTooLargeError(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        f"the request has {_mebibytes(size)}, and the limit is {_mebibytes(limit)}: send a file instead of "
        "an array, a smaller image or fewer images a call, or raise max_message_bytes of client and server",
    )


def _reworded(error: VisiongateError, message: str, field: str) -> VisiongateError:
    return type(error)(
        error.code,
        message,
        field=field,
        reason=error.reason,
        retry_s=error.retry_s,
        request_id=error.request_id,
        grpc_message=error.grpc_message,
    )


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size} bytes"


def _error(
    code: grpc.StatusCode,
    text: str,
    details: Iterable[any_pb2.Any],
    request_id: str,
    in_list: Callable[[str], str],
) -> VisiongateError:
    """Make the error of a status that has details. `in_list` rewrites field paths."""
    retry = _unpack(details, error_details_pb2.RetryInfo())
    bad_request = _unpack(details, error_details_pb2.BadRequest())
    reason = _unpack(details, error_details_pb2.ErrorInfo()).reason
    return error_kind(code, reason)(
        code,
        in_list(text) or _NO_REASON,
        field=in_list(bad_request.field_violations[0].field) if bad_request.field_violations else "",
        reason=reason,
        retry_s=_seconds(retry) if retry.HasField("retry_delay") else None,
        request_id=_unpack(details, error_details_pb2.RequestInfo()).request_id or request_id,
        grpc_message=text,
    )


def _renumbering(list_name: str, number: Callable[[int], int]) -> Callable[[str], str]:
    """Return what changes the index at the start of a field path, or of a sentence that begins with one.

    A long list goes in several requests, and the server counts within each.
    """
    pattern = re.compile(rf"^{list_name}\[(\d+)\]")
    return lambda path: pattern.sub(lambda match: f"{list_name}[{number(int(match[1]))}]", path)


def _in_plain_words(
    kind: type[VisiongateError], code: grpc.StatusCode, text: str, connection: Connection, method: str
) -> tuple[type[VisiongateError], str]:
    """Return kind and message of a status without details: it is gRPC's own, or a proxy's."""
    address = connection.address.text
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and (sizes := _TOO_LARGE.search(text)):
        return MessageTooLargeError, too_large(int(sizes[1]), int(sizes[2])).message
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return kind, f"{address} does not know {method}: it is not a visiongate server, or an older one"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        never = "" if connection.reached else ", nor ever before: is a visiongate server there?"
        return kind, f"{address} did not answer in time{never}"
    if code is not grpc.StatusCode.UNAVAILABLE:
        return kind, text
    for pattern, words in _SETUP:
        if match := re.search(pattern, text):
            reason = match[1] if match.re.groups and match[1] else "no reason given"
            return ConnectionSetupError, words.format(address, reason)
    return UnavailableError, _absence(text, connection)


def _absence(text: str, connection: Connection) -> str:
    """Say why there is no connection, for causes that waiting may end."""
    address = connection.address.text
    if refused := re.search(_PROXY_REFUSED, text):
        message = f"the proxy does not let the call through to {address} (HTTP status {refused[1]})"
    elif re.search(_NO_HOST, text):
        message = f"no host has the name in {address}, or its name service does not answer"
    elif "failed to connect" not in text:
        # There was a connection, and it broke; or a proxy answers for a server that it cannot reach.
        return f"{address} cannot answer at present: {text}"
    elif re.search(_CLOSED, text):
        message = (_CLOSED_PLAIN if connection.credentials is None else _CLOSED_TLS).format(address)
    else:
        message = _ABSENT.format(address)
    if connection.proxy_variable:
        message += f"; the variable {connection.proxy_variable} names a proxy on the way"
    return message


def _details(metadata: Iterable[Any]) -> list[any_pb2.Any]:
    """Return the details of a status; none if they are missing or broken.

    `grpc_status.rpc_status` does not serve: it raises ValueError if a proxy changed the status or its text.
    """
    for key, value in metadata:
        if key == _DETAILS and isinstance(value, bytes):
            try:
                return list(status_pb2.Status.FromString(value).details)
            except DecodeError:
                return []
    return []


def _unpack(details: Iterable[any_pb2.Any], kind: Any) -> Any:
    """Return the detail of that kind, or an empty one."""
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

"""How an error leaves: gRPC's status code as HTTP's, and `google.rpc.Status` as JSON."""

import math
from collections.abc import Mapping

import grpc
import grpc.aio
import orjson

# With these details in the descriptor pool, they are written as JSON and not left out.
from google.protobuf import duration_pb2, json_format
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from gateway.errors import StatusError

HTTP_STATUS: Mapping[int, int] = {
    code_pb2.OK: 200,
    code_pb2.CANCELLED: 499,
    code_pb2.UNKNOWN: 500,
    code_pb2.INVALID_ARGUMENT: 400,
    code_pb2.DEADLINE_EXCEEDED: 504,
    code_pb2.NOT_FOUND: 404,
    code_pb2.ALREADY_EXISTS: 409,
    code_pb2.PERMISSION_DENIED: 403,
    code_pb2.RESOURCE_EXHAUSTED: 429,
    code_pb2.FAILED_PRECONDITION: 400,
    code_pb2.ABORTED: 409,
    code_pb2.OUT_OF_RANGE: 400,
    code_pb2.UNIMPLEMENTED: 501,
    code_pb2.INTERNAL: 500,
    code_pb2.UNAVAILABLE: 503,
    code_pb2.DATA_LOSS: 500,
    code_pb2.UNAUTHENTICATED: 401,
}
# RESOURCE_EXHAUSTED of a request that will never fit: to send it again is no use.
_TOO_LARGE = "MESSAGE_TOO_LARGE"
# For whoever is refused without being told when to come again.
DEFAULT_RETRY_S = 1


class HttpError(StatusError):
    """An error that HTTP has a status of its own for, such as 405, and gRPC none."""

    def __init__(
        self,
        http_status: int,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code, message, reason=reason, fault="caller" if http_status < 500 else "server")
        self.http_status = http_status
        self.headers = headers or {}


class CallError(Exception):
    """A call that the gateway answered with an error, which its log and its metrics know."""

    def __init__(self, status: status_pb2.Status) -> None:
        super().__init__(status.message)
        self.status = status

    @classmethod
    def of(cls, error: grpc.aio.AioRpcError) -> "CallError":
        """Return what a call's end says."""
        status = rpc_status.from_call(error)  # type: ignore[arg-type]  # it has what the function asks
        return cls(status or status_pb2.Status(code=error.code().value[0], message=error.details() or ""))


def http_status(status: status_pb2.Status) -> int:
    """Return the HTTP status of an error."""
    if status.code == code_pb2.RESOURCE_EXHAUSTED and _reason(status) == _TOO_LARGE:
        return 413
    return HTTP_STATUS.get(status.code, 500)


def retry_headers(status: status_pb2.Status) -> dict[str, str]:
    """Return the headers that say when to try again, for errors that pass."""
    if http_status(status) not in (429, 503):
        return {}
    delay = duration_pb2.Duration(seconds=DEFAULT_RETRY_S)
    info = error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Unpack(info):
            delay = info.retry_delay
    return {"retry-after": str(max(1, math.ceil(delay.ToNanoseconds() / 1e9)))}


def to_json(status: status_pb2.Status) -> bytes:
    """Write an error as JSON."""
    return orjson.dumps(to_tree(status))


def to_tree(status: status_pb2.Status) -> dict[str, object]:
    """Return an error as what JSON is written of."""
    return {"code": status.code, "message": status.message} | json_format.MessageToDict(
        status, preserving_proto_field_name=True
    )


def _reason(status: status_pb2.Status) -> str:
    info = error_details_pb2.ErrorInfo()
    return next((info.reason for detail in status.details if detail.Unpack(info)), "")

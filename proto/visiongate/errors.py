"""The error that a client's methods raise."""

from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status


class VisiongateError(Exception):
    """A call that failed.

    `code` is the gRPC status, `field` the part of the request that is wrong (INVALID_ARGUMENT), `reason` a
    fixed word for programs, such as IMAGE_NOT_CACHED, `retry_s` after how many seconds a server that is full
    wants to be asked again, `request_id` what the server's log calls the call. Each is empty, or None, where
    it does not apply.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        field: str = "",
        reason: str = "",
        retry_s: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message
        self.field = field
        self.reason = reason
        self.retry_s = retry_s
        self.request_id = request_id

    @classmethod
    def from_rpc(cls, error: grpc.RpcError) -> "VisiongateError":
        """Reads the status and its details out of gRPC's own exception."""
        assert isinstance(error, grpc.Call | grpc.aio.AioRpcError)
        # Of both the sync and the asyncio exception: code(), details(), trailing_metadata().
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
        details = list(status.details) if status else []
        bad_request = _unpack(details, error_details_pb2.BadRequest())
        retry = _unpack(details, error_details_pb2.RetryInfo())
        return cls(
            error.code(),
            error.details() or "no details",
            field=bad_request.field_violations[0].field if bad_request.field_violations else "",
            reason=_unpack(details, error_details_pb2.ErrorInfo()).reason,
            retry_s=retry.retry_delay.ToNanoseconds() / 1e9 if retry.HasField("retry_delay") else None,
            request_id=_unpack(details, error_details_pb2.RequestInfo()).request_id,
        )


def _unpack(details: Sequence[any_pb2.Any], kind: Any) -> Any:
    """The detail of that kind, or an empty one."""
    for detail in details:
        if detail.Unpack(kind):
            break
    return kind

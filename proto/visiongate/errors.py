"""The error that a client's methods raise."""

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status


class VisiongateError(Exception):
    """A call that failed.

    `code` is the gRPC status, `field` the part of the request that is wrong (INVALID_ARGUMENT),
    `reason` a fixed word for programs, such as IMAGE_NOT_CACHED. Either is empty where it does not apply.
    """

    def __init__(self, code: grpc.StatusCode, message: str, field: str = "", reason: str = "") -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message
        self.field = field
        self.reason = reason

    @classmethod
    def from_rpc(cls, error: grpc.RpcError) -> "VisiongateError":
        """Reads the status and its details out of gRPC's own exception."""
        assert isinstance(error, grpc.Call | grpc.aio.AioRpcError)
        field = reason = ""
        # Of both the sync and the asyncio exception: code(), details(), trailing_metadata().
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
        for detail in status.details if status else ():
            bad_request, info = error_details_pb2.BadRequest(), error_details_pb2.ErrorInfo()
            if detail.Unpack(bad_request):
                field = bad_request.field_violations[0].field
            elif detail.Unpack(info):
                reason = info.reason
        return cls(error.code(), error.details() or "no details", field, reason)

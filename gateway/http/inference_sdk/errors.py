"""Errors, as inference-sdk reads them: an object with a `message`."""

import grpc
import orjson
from google.rpc import status_pb2

from gateway.errors import StatusError


class NotServedError(StatusError):
    """A route, or a part of one, that this server does not answer. The sentence says what to do instead."""

    def __init__(self, message: str) -> None:
        super().__init__(grpc.StatusCode.UNIMPLEMENTED, message, reason="NOT_SERVED")


def to_json(status: status_pb2.Status) -> bytes:
    """Write an error."""
    return orjson.dumps({"message": status.message})

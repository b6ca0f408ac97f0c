"""Errors that carry their gRPC status.

Code anywhere raises these, the interceptor sends them; nothing else decides what a caller sees.
"""

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

ERROR_DOMAIN = "visiongate"


class StatusError(Exception):
    """An error that a caller is told of: `code`, a sentence, and `google.rpc` details."""

    def __init__(self, code: grpc.StatusCode, message: str, *details: Message) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details

    def to_status(self, request_id: str) -> grpc.Status:
        """The status as gRPC sends it, details in the `grpc-status-details-bin` trailer."""
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for detail in (*self.details, error_details_pb2.RequestInfo(request_id=request_id)):
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        return rpc_status.to_status(status)


class InvalidArgumentError(StatusError):
    """The request is wrong: names the field, as a path into the request message, and the limit."""

    def __init__(self, field: str, description: str) -> None:
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=description)
        super().__init__(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"{field}: {description}",
            error_details_pb2.BadRequest(field_violations=[violation]),
        )


class ImageNotCachedError(StatusError):
    """An `image_id` that the server does not, or no longer, know."""

    def __init__(self, image_id: str, field: str = "image") -> None:
        super().__init__(
            grpc.StatusCode.NOT_FOUND,
            f"{field}.image_id: the image is not in the server's cache: send it again",
            error_details_pb2.ErrorInfo(
                reason="IMAGE_NOT_CACHED", domain=ERROR_DOMAIN, metadata={"image_id": image_id[:128]}
            ),
        )


class ImageNotFetchedError(StatusError):
    """The host of an `image.uri` did not deliver; later, or from elsewhere, it may."""

    def __init__(self, field: str, description: str) -> None:
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=description)
        super().__init__(
            grpc.StatusCode.FAILED_PRECONDITION,
            f"{field}: {description}",
            error_details_pb2.BadRequest(field_violations=[violation]),
            error_details_pb2.ErrorInfo(reason="IMAGE_NOT_FETCHED", domain=ERROR_DOMAIN),
        )


class NoModelError(StatusError):
    """The repository has no model for the task at all."""

    def __init__(self, task: str) -> None:
        super().__init__(
            grpc.StatusCode.UNIMPLEMENTED,
            f"this server has no model for {task}",
            error_details_pb2.ErrorInfo(reason="NO_MODEL", domain=ERROR_DOMAIN, metadata={"task": task}),
        )


class TritonUnavailableError(StatusError):
    """Triton, or one of its models, does not answer."""

    def __init__(self, message: str) -> None:
        super().__init__(
            grpc.StatusCode.UNAVAILABLE,
            message,
            error_details_pb2.ErrorInfo(reason="TRITON_UNAVAILABLE", domain=ERROR_DOMAIN),
        )


class OverloadedError(StatusError):
    """The server has as much to do as it takes; `retry_s` says when to come again."""

    def __init__(self, message: str, retry_s: float) -> None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(retry_s * 1e9))
        super().__init__(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            f"{message}: try again later",
            error_details_pb2.RetryInfo(retry_delay=delay),
            error_details_pb2.ErrorInfo(reason="OVERLOADED", domain=ERROR_DOMAIN),
        )


class UnauthenticatedError(StatusError):
    """The caller did not show a key that the server knows."""

    def __init__(self, message: str) -> None:
        super().__init__(
            grpc.StatusCode.UNAUTHENTICATED,
            message,
            error_details_pb2.ErrorInfo(reason="UNAUTHENTICATED", domain=ERROR_DOMAIN),
        )

"""Errors: those that carry their gRPC status, and those of one input, which a service turns into such.

Code anywhere raises these, the interceptor sends them. Nothing else decides what a caller sees.
"""

import traceback

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

ERROR_DOMAIN = "visiongate"


# The codes that the semantic conventions call errors of a server. The others are the caller's doing.
SERVER_FAULTS = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)


def forget_frames(error: BaseException) -> None:
    """Drop the frames of a caught exception, and of its causes, with all that they hold.

    An exception knows the frames that it passed through, and these often know a task that knows the
    exception. Such a cycle keeps all that the call held, images and tensors, until the cyclic garbage
    collector runs. Whoever catches an exception for good calls this. It is the one place that breaks such
    cycles.
    """
    seen: set[int] = set()
    errors: list[BaseException | None] = [error]
    while errors:
        latest = errors.pop()
        if latest is not None and id(latest) not in seen:
            seen.add(id(latest))
            traceback.clear_frames(latest.__traceback__)
            latest.__traceback__ = None
            errors += [latest.__cause__, latest.__context__]


class InputError(Exception):
    """One input of a request cannot be used. Pipelines raise it; the service knows the input's field.

    index: the input's place in its list, once that is known.
    """

    def __init__(self, description: str) -> None:
        super().__init__(description)
        self.index: int | None = None

    def to_status_error(self, field: str) -> "StatusError":
        """Return the error of this field of the request."""
        return InvalidArgumentError(field, str(self))


class ImageNotCachedError(InputError):
    """An `image_id` of an image that is not kept, or not of this caller: the error does not tell which."""

    def __init__(self, image_id: str) -> None:
        super().__init__("the image is not in the server's cache: send it again")
        self._image_id = image_id

    def to_status_error(self, field: str) -> "StatusError":
        return StatusError(
            grpc.StatusCode.NOT_FOUND,
            f"{field}: {self}",
            error_details_pb2.ErrorInfo(
                reason="IMAGE_NOT_CACHED", domain=ERROR_DOMAIN, metadata={"image_id": self._image_id[:128]}
            ),
        )


class ImageNotFetchedError(InputError):
    """The host of an image's URI did not deliver it. It may do so later, and another host may."""

    def to_status_error(self, field: str) -> "StatusError":
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=str(self))
        return StatusError(
            grpc.StatusCode.FAILED_PRECONDITION,
            f"{field}: {self}",
            error_details_pb2.BadRequest(field_violations=[violation]),
            error_details_pb2.ErrorInfo(reason="IMAGE_NOT_FETCHED", domain=ERROR_DOMAIN),
        )


class AnswerTooLargeError(InputError):
    """An answer would have more bytes, or more pixels of masks, than the server allows."""


class StatusError(Exception):
    """An error that a caller gets: `code`, a sentence, and `google.rpc` details."""

    def __init__(self, code: grpc.StatusCode, message: str, *details: Message) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details

    def to_message(self, request_id: str) -> status_pb2.Status:
        """Return the error as a message, for one item of an answer."""
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for detail in (*self.details, error_details_pb2.RequestInfo(request_id=request_id)):
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        return status

    def to_status(self, request_id: str) -> grpc.Status:
        """Return the status as gRPC sends it, with the details in the trailer `grpc-status-details-bin`."""
        return rpc_status.to_status(self.to_message(request_id))


class InvalidArgumentError(StatusError):
    """The request is wrong. Names the field, as a path into the request message, and the limit."""

    def __init__(self, field: str, description: str) -> None:
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=description)
        super().__init__(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"{field}: {description}",
            error_details_pb2.BadRequest(field_violations=[violation]),
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


class NotFiniteError(StatusError):
    """A model answered with infinities or NaN. Nothing that is made of them is an answer."""

    def __init__(self, model: str) -> None:
        super().__init__(grpc.StatusCode.INTERNAL, f"model {model} answered with a number that is not finite")


class RequestKilledServerError(StatusError):
    """The connection to Triton was lost twice while it had this request. It may be what ends servers.

    INTERNAL is a status that neither our client nor proxies repeat.
    """

    def __init__(self, message: str) -> None:
        super().__init__(
            grpc.StatusCode.INTERNAL,
            message,
            error_details_pb2.ErrorInfo(reason="REQUEST_KILLED_SERVER", domain=ERROR_DOMAIN),
        )


class OverloadedError(StatusError):
    """The server has as much work as it accepts. `retry_s` says when to try again."""

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
    """The caller did not send a key that the server knows."""

    def __init__(self, message: str) -> None:
        super().__init__(
            grpc.StatusCode.UNAUTHENTICATED,
            message,
            error_details_pb2.ErrorInfo(reason="UNAUTHENTICATED", domain=ERROR_DOMAIN),
        )

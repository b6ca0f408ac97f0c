"""Errors: those that carry their gRPC status, and those of one input, which a service turns into such.

Code anywhere raises these, the interceptor sends them. Nothing else decides what a caller sees.
"""

import asyncio
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

ERROR_DOMAIN = "visiongate"


Fault = Literal["none", "caller", "server", "load"]
"""Whose doing the end of a call was. load: there was no room for it."""

# The other codes are the caller's doing, if an error does not say more.
_FAULTS: Mapping[grpc.StatusCode, Fault] = {
    grpc.StatusCode.OK: "none",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "load",
    grpc.StatusCode.UNKNOWN: "server",
    grpc.StatusCode.DEADLINE_EXCEEDED: "server",
    grpc.StatusCode.INTERNAL: "server",
    grpc.StatusCode.UNAVAILABLE: "server",
    grpc.StatusCode.DATA_LOSS: "server",
}


@dataclass(frozen=True, slots=True)
class End:
    """How a call ended, the same for its caller, the log, the metrics and its span.

    reason: a fixed word that says more than the code, as in `google.rpc.ErrorInfo`; may be empty. about: what
    it concerns, for the log and the span: a request's field, a limit, a model. Nothing that a caller sent.
    cause: another program's words about it, for the log alone.
    """

    code: grpc.StatusCode = grpc.StatusCode.OK
    reason: str = ""
    fault: Fault = "none"
    about: Mapping[str, str] = field(default_factory=dict)
    cause: str = ""


def end_of(error: BaseException, *, is_late: bool = False, is_stopped: bool = False) -> End:
    """Decide how a call ended that ended with this exception.

    is_late: the deadline that the caller set has passed. is_stopped: the server's time to stop was over.
    """
    codes = grpc.StatusCode
    if isinstance(error, StatusError):
        cause = str(error.__cause__ or "") if error.fault in ("server", "load") else ""
        return End(error.code, error.reason, error.fault, error.about, cause)
    if not isinstance(error, asyncio.CancelledError | GeneratorExit):
        return End(codes.INTERNAL, "UNEXPECTED", "server")
    if is_late:
        return End(codes.DEADLINE_EXCEEDED, "CALLER_DEADLINE", "caller")
    if is_stopped:
        return End(codes.CANCELLED, "SERVER_STOPPED", "server")
    return End(codes.CANCELLED, "CALLER_LEFT", "caller")


def unexpected(end: End) -> "StatusError":
    """Return what a caller is told of an error that nobody expected: nothing but that it was one."""
    return StatusError(end.code, "internal error: the server's log says more", reason=end.reason)


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
            reason="IMAGE_NOT_CACHED",
            about={"field": field},
            metadata={"image_id": self._image_id[:128]},
        )


class ImageNotFetchedError(InputError):
    """The host of an image's URI did not deliver it. It may do so later, and another host may."""

    def to_status_error(self, field: str) -> "StatusError":
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=str(self))
        return StatusError(
            grpc.StatusCode.FAILED_PRECONDITION,
            f"{field}: {self}",
            error_details_pb2.BadRequest(field_violations=[violation]),
            reason="IMAGE_NOT_FETCHED",
            about={"field": field},
        )


class AnswerTooLargeError(InputError):
    """An answer would have more bytes, or more pixels of masks, than the server allows."""


class ListTooLargeError(InputError):
    """The results of a list would together make too large an answer, though each may be small enough."""


class StatusError(Exception):
    """An error that a caller gets: `code`, a sentence, and `google.rpc` details.

    With a reason it has an ErrorInfo, whose metadata are `metadata`. `fault` and `about` are those of `End`.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *details: Message,
        reason: str = "",
        fault: Fault | None = None,
        about: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason
        self.fault = fault or _FAULTS.get(code, "caller")
        self.about = about or {}
        info = [error_details_pb2.ErrorInfo(reason=reason, domain=ERROR_DOMAIN, metadata=metadata)]
        self.details = (*details, *(info if reason else ()))

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
            about={"field": field},
        )


class NoModelError(StatusError):
    """The repository has no model for the task at all."""

    def __init__(self, task: str) -> None:
        super().__init__(
            grpc.StatusCode.UNIMPLEMENTED,
            f"this server has no model for {task}",
            reason="NO_MODEL",
            about={"task": task},
            metadata={"task": task},
        )


class UnknownMethodError(StatusError):
    """The server has no method of this name."""

    def __init__(self) -> None:
        super().__init__(
            grpc.StatusCode.UNIMPLEMENTED, "the server does not know this method", reason="UNKNOWN_METHOD"
        )


class DeadlineExceededError(StatusError):
    """A time limit of the server's own has passed. `reason` and `fault` say whose slowness that was."""

    def __init__(self, message: str, reason: str, fault: Fault) -> None:
        super().__init__(grpc.StatusCode.DEADLINE_EXCEEDED, message, reason=reason, fault=fault)


class MessageTooLargeError(StatusError):
    """A request message is larger than the server receives. gRPC's own words, which its caller has got."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            f"Received message larger than max ({max_bytes})",
            reason="MESSAGE_TOO_LARGE",
            fault="caller",
            about={"limit": "max_message_bytes"},
        )


class TritonUnavailableError(StatusError):
    """Triton, or one of its models, does not answer."""

    def __init__(self, message: str, model: str = "") -> None:
        super().__init__(
            grpc.StatusCode.UNAVAILABLE,
            message,
            reason="TRITON_UNAVAILABLE",
            about={"model": model} if model else None,
        )


class NotFiniteError(StatusError):
    """A model answered with infinities or NaN. Nothing that is made of them is an answer."""

    def __init__(self, model: str) -> None:
        super().__init__(
            grpc.StatusCode.INTERNAL,
            f"model {model} answered with a number that is not finite",
            reason="NOT_FINITE",
            about={"model": model},
        )


class RequestKilledServerError(StatusError):
    """The connection to Triton was lost twice while it had this request. It may be what ends servers.

    INTERNAL is a status that neither our client nor proxies repeat.
    """

    def __init__(self, message: str, model: str) -> None:
        super().__init__(
            grpc.StatusCode.INTERNAL, message, reason="REQUEST_KILLED_SERVER", about={"model": model}
        )


class OverloadedError(StatusError):
    """The server has as much work as it accepts, or the caller has its share of that, if `limit` is "caller".

    limit: of what there is no more. retry_s: when to try again.
    """

    def __init__(self, message: str, limit: str, retry_s: float) -> None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(retry_s * 1e9))
        super().__init__(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            f"{message}: try again later",
            error_details_pb2.RetryInfo(retry_delay=delay),
            reason="OVERLOADED",
            fault="caller" if limit == "caller" else "load",
            about={"limit": limit},
            metadata={"limit": limit},
        )


class UnauthenticatedError(StatusError):
    """The caller did not send a key that the server knows: the reason says whether it sent any."""

    def __init__(self, message: str, reason: Literal["KEY_MISSING", "KEY_UNKNOWN"]) -> None:
        super().__init__(grpc.StatusCode.UNAUTHENTICATED, message, reason=reason)

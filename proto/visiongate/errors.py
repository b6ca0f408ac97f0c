"""The errors that the client's methods raise.

`VisiongateError` is the base of all. Each kind of failure that a program may want to handle is a class.
"""

from typing import Any

import grpc


class VisiongateError(Exception):
    """A call, or an item of a list, that failed.

    `code` is the gRPC status and `message` a sentence for people. `field` is the part of the request that is
    wrong, `reason` a fixed word for programs, such as IMAGE_NOT_CACHED, `retry_s` the seconds that a full
    server asks callers to wait, and `request_id` the name of the call in the server's log. Each of these is
    empty, or None, if it does not apply. `grpc_message` is the text as gRPC has it; `message` may say it in
    plainer words, and with the index in the whole list.
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
        grpc_message: str = "",
    ) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message
        self.field = field
        self.reason = reason
        self.retry_s = retry_s
        self.request_id = request_id
        self.grpc_message = grpc_message or message

    def __reduce__(self) -> tuple[Any, ...]:
        # By default an exception is restored from its text alone.
        details = {name: value for name, value in vars(self).items() if name not in ("code", "message")}
        return _restore, (type(self), self.code, self.message, details)


def _restore(
    kind: type[VisiongateError], code: grpc.StatusCode, message: str, details: dict[str, Any]
) -> VisiongateError:
    error = kind(code, message)
    vars(error).update(details)
    return error


class InvalidArgumentError(VisiongateError):
    """The request is wrong: `field` names the part, the message the limit. Mend the request."""


class ImageNotCachedError(VisiongateError):
    """The server keeps no image of this `image_id`, or it is not this caller's: send the image again."""


class ImageNotFetchedError(VisiongateError):
    """The host of an image's URI did not deliver it: check the URI, or send the image itself."""


class OverloadedError(VisiongateError):
    """The server is full, and stayed so for as long as `timeout` let the client wait.

    Try again after `retry_s` seconds (None if the server does not say), or send fewer calls at a time.
    """


class MessageTooLargeError(VisiongateError):
    """The request is larger than the limit: it was not sent, or refused. The message gives both sizes.

    Send a file instead of an array, a smaller image or fewer images a call; or raise `max_message_bytes` of
    the client and of the server.
    """


class UnauthenticatedError(VisiongateError):
    """The server requires an API key that it knows: give `api_key`, or set VISIONGATE_API_KEY."""


class NoModelError(VisiongateError):
    """The server has no model for the task: ask another one, or export the model."""


class UnimplementedError(VisiongateError):
    """The server does not know the method: it is not a visiongate server, or an older one."""


class UnavailableError(VisiongateError):
    """No server answers, or its Triton does not, and waiting did not help.

    Check that the server runs and that the address is right; then try again.
    """


class ConnectionSetupError(VisiongateError):
    """The client's options do not fit the server: TLS, certificates or the protocol differ.

    Waiting does not help. The message says which option to change.
    """


class DeadlineExceededError(VisiongateError):
    """The answer did not come within the call's time, and the server dropped the work: allow more time."""


class CallCancelledError(VisiongateError):
    """The server cancelled the call, as it does under more load than it can refuse: try later."""


class InternalError(VisiongateError):
    """A fault of the server or of a model: its log says more under `request_id`."""


class ClientClosedError(VisiongateError):
    """The client was closed before or during the call: make a new one."""


class ForkedClientError(VisiongateError):
    """gRPC cannot be used in this process, which was forked from one that used it.

    Start processes by the methods "spawn" or "forkserver", or make the first call after the fork.
    """


_KINDS: dict[tuple[grpc.StatusCode, str], type[VisiongateError]] = {
    (grpc.StatusCode.INVALID_ARGUMENT, ""): InvalidArgumentError,
    (grpc.StatusCode.NOT_FOUND, "IMAGE_NOT_CACHED"): ImageNotCachedError,
    (grpc.StatusCode.FAILED_PRECONDITION, "IMAGE_NOT_FETCHED"): ImageNotFetchedError,
    (grpc.StatusCode.RESOURCE_EXHAUSTED, ""): OverloadedError,
    (grpc.StatusCode.UNAUTHENTICATED, ""): UnauthenticatedError,
    (grpc.StatusCode.PERMISSION_DENIED, ""): UnauthenticatedError,
    (grpc.StatusCode.UNIMPLEMENTED, "NO_MODEL"): NoModelError,
    (grpc.StatusCode.UNIMPLEMENTED, ""): UnimplementedError,
    (grpc.StatusCode.UNAVAILABLE, ""): UnavailableError,
    (grpc.StatusCode.DEADLINE_EXCEEDED, ""): DeadlineExceededError,
    (grpc.StatusCode.CANCELLED, ""): CallCancelledError,
    (grpc.StatusCode.INTERNAL, ""): InternalError,
    (grpc.StatusCode.UNKNOWN, ""): InternalError,
    (grpc.StatusCode.DATA_LOSS, ""): InternalError,
}


def error_kind(code: grpc.StatusCode, reason: str) -> type[VisiongateError]:
    """Return the class of errors with this status and reason, or with this status alone."""
    return _KINDS.get((code, reason)) or _KINDS.get((code, "")) or VisiongateError

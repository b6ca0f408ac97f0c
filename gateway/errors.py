"""Errors that carry their gRPC status, and the one interceptor that sends them.

Code anywhere below the services raises these; nothing else decides what a caller sees.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

logger = logging.getLogger(__name__)

ERROR_DOMAIN = "visiongate"


class StatusError(Exception):
    """An error that a caller is told of: `code`, a sentence, and `google.rpc` details."""

    def __init__(self, code: grpc.StatusCode, message: str, *details: Message) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details

    def to_status(self) -> grpc.Status:
        """The status as gRPC sends it, details in the `grpc-status-details-bin` trailer."""
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for detail in self.details:
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


Handler = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Turns a `StatusError` into its status, and anything unexpected into INTERNAL without its text."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler
        return grpc.unary_unary_rpc_method_handler(
            _guarded(handler.unary_unary, handler_call_details.method),
            handler.request_deserializer,
            handler.response_serializer,
        )


def _guarded(handle: Handler, method: str) -> Handler:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await handle(request, context)
        except StatusError as error:
            status = error
        except grpc.aio.AbortError:  # context.abort: the status is already set
            raise
        except Exception:
            # The text may name paths or other callers' data: it goes to the log alone.
            logger.exception("%s failed", method)
            status = StatusError(grpc.StatusCode.INTERNAL, "internal error: the server's log says more")
        return await context.abort_with_status(status.to_status())

    return call

"""What every call passes on its way to a service: who calls, whether there is room, how long it may take."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from gateway.admission import Gate
from gateway.call import REQUEST_ID, Call, observe
from gateway.errors import SERVER_FAULTS, InvalidArgumentError, StatusError, forget_frames
from gateway.health import HEALTH

logger = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
Metadata = Mapping[str, str]
Answer = TypeVar("Answer")


class Authenticator(Protocol):
    """Knows callers by what they send."""

    def authenticate(self, metadata: Metadata) -> str:
        """Return the caller's name. Raise StatusError with UNAUTHENTICATED if there is none."""


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Guards every method except those of health, which probes call without a key.

    A `StatusError` becomes its status, and anything unexpected INTERNAL without its text.
    """

    def __init__(
        self, gate: Gate, max_call_s: float, max_receive_s: float, authenticator: Authenticator | None
    ) -> None:
        self._gate = gate
        self._max_call_s = max_call_s
        self._max_receive_s = max_receive_s
        self._authenticator = authenticator

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(f"/{HEALTH}/"):
            return handler
        if handler.unary_unary is not None:

            async def answer(messages: AsyncIterator[bytes], context: Context) -> bytes | None:
                return await self._guard(method, context, lambda call: self._answer(handler, context, call))

            # A stream of one message, which is read here: a call is refused before its message is received.
            return grpc.stream_unary_rpc_method_handler(answer)

        if handler.stream_stream is None:
            raise NotImplementedError(f"{method}: methods with a stream on one side only have no guard")

        async def answer_each(messages: AsyncIterator[Any], context: Context) -> None:
            await self._guard(
                method, context, lambda call: self._answer_each(handler, messages, context, call)
            )

        # A coroutine that writes and no generator, outside of which a time limit inside it would strike.
        return grpc.stream_stream_rpc_method_handler(
            answer_each, handler.request_deserializer, handler.response_serializer
        )

    async def _guard(
        self, method: str, context: Context, work: Callable[[Call], Awaitable[Answer]]
    ) -> Answer | None:
        """Do a call's work. Its errors become the call's status; then there is no answer."""
        with observe(method, _metadata(context), context.peer()) as call:
            try:
                answer = await work(call)
                context.set_trailing_metadata(((REQUEST_ID, call.request_id),))
                return answer
            except asyncio.CancelledError as error:
                # gRPC cancels at the caller's deadline, and when it hangs up.
                remaining = context.time_remaining()
                is_late = remaining is not None and remaining <= 0
                codes = grpc.StatusCode
                call.code = codes.DEADLINE_EXCEEDED if is_late else codes.CANCELLED
                forget_frames(error)
                raise
            except StatusError as error:
                status = error.to_status(call.request_id)
                call.code = error.code
                if error.code in SERVER_FAULTS:
                    call.cause = str(error.__cause__ or "")
                forget_frames(error)
            except Exception as error:
                # The text may name paths or other callers' data: it goes to the log alone.
                logger.exception("%s failed", method)
                fault = StatusError(grpc.StatusCode.INTERNAL, "internal error: the server's log says more")
                status = fault.to_status(call.request_id)
                call.code = fault.code
                forget_frames(error)
        await context.abort_with_status(status)
        return None

    async def _answer(self, handler: Any, context: Context, call: Call) -> bytes:
        self._authenticate(context, call)
        with self._gate.admit():
            async with self._time_limit():
                data = await self._receive(context)
                call.request_bytes = len(data)
                with self._gate.reserve(len(data)):
                    request = _parse(handler.request_deserializer, data)
                    response = await handler.unary_unary(request, context)
        answer: bytes = handler.response_serializer(response)
        call.response_bytes = len(answer)
        return answer

    async def _answer_each(
        self, handler: Any, messages: AsyncIterator[Any], context: Context, call: Call
    ) -> None:
        """Answer a stream, which has a place and a time limit as any call has."""
        self._authenticate(context, call)
        with self._gate.admit():
            async with self._time_limit():
                async for response in handler.stream_stream(messages, context):
                    await context.write(response)

    def _time_limit(self) -> AbstractAsyncContextManager[None]:
        return _limit(
            self._max_call_s, f"the server gives a call {self._max_call_s:g} seconds, and this took longer"
        )

    async def _receive(self, context: Context) -> bytes:
        """Return the call's one message. Callers that never send it must not keep the places of others.

        The iterator that the handler gets is not used: unless it is read to its end, it is in a cycle with
        itself, and keeps the message until the cyclic garbage collector runs.
        """
        late = f"the request did not arrive within {self._max_receive_s:g} seconds"
        async with _limit(self._max_receive_s, late):
            data = await context.read()
        if data is grpc.aio.EOF:
            raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, "the request has no message")
        return cast(bytes, data)

    def _authenticate(self, context: Context, call: Call) -> None:
        if self._authenticator is not None:
            call.caller = self._authenticator.authenticate(_metadata(context))


@asynccontextmanager
async def _limit(seconds: float, message: str) -> AsyncIterator[None]:
    """Raise DEADLINE_EXCEEDED after so many seconds. A TimeoutError of the work inside is left alone."""
    timeout = asyncio.timeout(seconds)
    try:
        async with timeout:
            yield
    except TimeoutError as error:
        if not timeout.expired():
            raise
        raise StatusError(grpc.StatusCode.DEADLINE_EXCEEDED, message) from error


def _metadata(context: Context) -> Metadata:
    """Return what the caller sent beside the message, except for binary values."""
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


def _parse(parse: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return parse(data)
    except DecodeError as error:
        raise InvalidArgumentError("request", "is not a message of this method") from error

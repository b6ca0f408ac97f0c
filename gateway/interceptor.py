"""The way of every call around its service: who calls, whether there is room, how long it may take."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from gateway import tracing
from gateway.admission import Gate
from gateway.errors import InvalidArgumentError, StatusError
from gateway.health import HEALTH
from gateway.observation import REQUEST_ID, Observation, observe

logger = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
Metadata = Mapping[str, str]


class Authenticator(Protocol):
    """Knows callers by what they send."""

    def authenticate(self, metadata: Metadata) -> str:
        """The caller's name; raises StatusError with UNAUTHENTICATED."""


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Guards every method but those of health, which probes ask without a key.

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
        if handler.unary_unary is None:
            return self._guarded_stream(handler, method)

        async def call(messages: AsyncIterator[bytes], context: Context) -> bytes | None:
            with observe(method, _metadata(context), context.peer()) as observation:
                try:
                    answer = await self._answer(handler, context, observation)
                    context.set_trailing_metadata(((REQUEST_ID, observation.request_id),))
                    return answer
                except asyncio.CancelledError:
                    # gRPC cancels at the caller's deadline, and when it hangs up.
                    remaining = context.time_remaining()
                    is_late = remaining is not None and remaining <= 0
                    codes = grpc.StatusCode
                    observation.code = codes.DEADLINE_EXCEEDED if is_late else codes.CANCELLED
                    raise
                except StatusError as error:
                    status = error.to_status(observation.request_id)
                    observation.code = error.code
                    if error.code in tracing.SERVER_FAULTS:
                        observation.cause = str(error.__cause__ or "")
                except Exception:
                    # The text may name paths or other callers' data: it goes to the log alone.
                    logger.exception("%s failed", method)
                    fault = StatusError(
                        grpc.StatusCode.INTERNAL, "internal error: the server's log says more"
                    )
                    status = fault.to_status(observation.request_id)
                    observation.code = fault.code
            # Of the exception nothing is kept: it knows this frame, and would keep all that the call held
            # until Python looks for cycles.
            await context.abort_with_status(status)
            return None

        # As a stream of one message, which is read here: what is refused is refused before it is received.
        return grpc.stream_unary_rpc_method_handler(call)

    async def _answer(self, handler: Any, context: Context, observation: Observation) -> bytes:
        self._authenticate(context, observation)
        too_long = f"the server gives a call {self._max_call_s:g} seconds, and this took longer"
        with self._gate.admit():
            async with _limit(self._max_call_s, too_long):
                data = await self._receive(context)
                observation.request_bytes = len(data)
                with self._gate.reserve(len(data)):
                    request = _parse(handler.request_deserializer, data)
                    response = await handler.unary_unary(request, context)
        answer: bytes = handler.response_serializer(response)
        observation.response_bytes = len(answer)
        return answer

    async def _receive(self, context: Context) -> bytes:
        """The call's one message. Callers that never send it must not keep the places of others.

        Not by the iterator that the handler is given: unless it is read to its end it is in a cycle with
        itself, and keeps the message until Python looks for cycles.
        """
        late = f"the request did not arrive within {self._max_receive_s:g} seconds"
        async with _limit(self._max_receive_s, late):
            data = await context.read()
        if data is grpc.aio.EOF:
            raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, "the request has no message")
        return cast(bytes, data)

    def _guarded_stream(self, handler: Any, method: str) -> Any:
        """Reflection's stream: it costs little, so its callers must only be known."""

        async def call(messages: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
            with observe(method, _metadata(context), context.peer()) as observation:
                try:
                    self._authenticate(context, observation)
                except StatusError as error:
                    observation.code = error.code
                    await context.abort_with_status(error.to_status(observation.request_id))
                async for answer in handler.stream_stream(messages, context):
                    yield answer

        return grpc.stream_stream_rpc_method_handler(
            call, handler.request_deserializer, handler.response_serializer
        )

    def _authenticate(self, context: Context, observation: Observation) -> None:
        if self._authenticator is not None:
            observation.caller = self._authenticator.authenticate(_metadata(context))


@asynccontextmanager
async def _limit(seconds: float, message: str) -> AsyncIterator[None]:
    """DEADLINE_EXCEEDED after so many seconds; a TimeoutError of the work inside is left alone."""
    timeout = asyncio.timeout(seconds)
    try:
        async with timeout:
            yield
    except TimeoutError as error:
        if not timeout.expired():
            raise
        raise StatusError(grpc.StatusCode.DEADLINE_EXCEEDED, message) from error


def _metadata(context: Context) -> Metadata:
    """What the caller sent beside the message, but for binary values."""
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


def _parse(parse: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return parse(data)
    except DecodeError as error:
        raise InvalidArgumentError("request", "is not a message of this method") from error

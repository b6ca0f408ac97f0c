"""What every call passes on its way to a service: who calls, whether there is room, how long it may take."""

import asyncio
import functools
import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import grpc
import grpc.aio

from gateway.admission import SLOW_AFTER_S, Admission
from gateway.alarms import Alarms
from gateway.call import REQUEST_ID, Call, observe
from gateway.call_context import Context, abort, at_end, metadata_of, subject_of
from gateway.call_ending import ending
from gateway.call_messages import COPIES, each_message, parse_counted, receive, serialise, write
from gateway.call_rules import END_S, CallRules
from gateway.connections import in_use
from gateway.errors import UnknownMethodError
from gateway.health import HEALTH
from gateway.streams import Streams

Answer = TypeVar("Answer")

UNKNOWN_METHOD = "unknown"
"""The name of all methods that do not exist, in the log and the metrics."""
_MAX_METHOD_LENGTH = 100


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Guards every method except those of health, which probes call without a key.

    A `StatusError` becomes its status, and anything unexpected INTERNAL without its text.
    """

    def __init__(self, rules: CallRules) -> None:
        self._rules = rules
        self._streams = Streams(rules)
        # What answers each method that has one message, as its handler does not change.
        self._unary: dict[str, Any] = {}

    def stop(self, grace_s: float) -> None:
        """Ask streams to end, and take note that gRPC ends all that is there after so many seconds."""
        self._rules.cut_off(grace_s)
        # A little later: callers that come again at once are then sent to other servers.
        asyncio.get_running_loop().call_later(END_S, self._streams.stop)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        method = handler_call_details.method
        if (known := self._unary.get(method)) is not None:
            return known
        handler = await continuation(handler_call_details)
        if method.startswith(f"/{HEALTH}/"):
            return handler
        if handler is None:

            async def refuse(messages: AsyncIterator[bytes], context: Context) -> None:
                await self._guard(UNKNOWN_METHOD, context, lambda call: _refuse_method(call, method))

            return grpc.stream_stream_rpc_method_handler(refuse)
        if handler.unary_unary is not None:
            self._unary[method] = guarded = self._guarded(method, handler)
            return guarded
        if handler.stream_stream is None:
            raise NotImplementedError(f"{method}: methods with a stream on one side only have no guard")

        # A generator answers messages with messages. A coroutine reads and writes as it likes, for long.
        answer_all = self._answer_each
        if inspect.iscoroutinefunction(handler.stream_stream):

            def find(other: str) -> Awaitable[Any]:
                details: Any = type(handler_call_details)
                return continuation(details(other, handler_call_details.invocation_metadata))

            answer_all = functools.partial(self._streams.serve, find)

        async def answer_each(messages: AsyncIterator[bytes], context: Context) -> None:
            await self._guard(method, context, lambda call: answer_all(handler, context, call))

        # A coroutine that writes and no generator, outside of which a time limit inside it would strike.
        return grpc.stream_stream_rpc_method_handler(answer_each)

    def _guarded(self, method: str, handler: Any) -> Any:
        """Return what answers a call with one message."""

        async def answer(messages: AsyncIterator[bytes], context: Context) -> bytes | None:
            return await self._guard(method, context, lambda call: self._answer(handler, context, call))

        # A stream of one message, which is read here: a call is refused before its message is received.
        return grpc.stream_unary_rpc_method_handler(answer)

    async def _guard(
        self, method: str, context: Context, work: Callable[[Call], Awaitable[Answer]]
    ) -> Answer | None:
        """Do a call's work. Its errors become the call's status; then there is no answer."""
        with observe(
            method, metadata_of(context), self._rules.connection(context), self._rules.proxies
        ) as call:
            call.certificate = subject_of(context)
            with ending(call, context, self._rules) as end:
                answer = await work(call)
                context.set_trailing_metadata(((REQUEST_ID, call.request_id),))
                return answer
        assert end.error is not None
        await abort(context, end.error.to_status(call.request_id))
        return None

    async def _answer(self, handler: Any, context: Context, call: Call) -> bytes:
        rules = self._rules
        rules.authenticate(context, call)
        alarms = Alarms(SLOW_AFTER_S)
        try:
            with (
                in_use(call.connection),
                self._admit(context, call) as admission,
                rules.time_limit(alarms),
            ):
                async with admission.arriving(alarms):
                    data = await receive(context, call, rules.limits, alarms)
                    call.request_bytes = len(data)
                    request, _ = await parse_counted(handler.request_deserializer, data, admission)
                    del data  # the message has a copy
                response = await handler.unary_unary(request, context)
                del request
                answer = await serialise(response, rules.limits.max_response_bytes)
                call.response_bytes = len(answer)
                admission.hold_only(COPIES * len(answer))
        except BaseException:
            alarms.close()
            raise
        at_end(context, rules.give_up_later(call, alarms).close)
        return answer

    async def _answer_each(self, handler: Any, context: Context, call: Call) -> None:
        """Answer a stream, which has a place and a time limit as any call has."""
        self._rules.authenticate(context, call)
        with (
            in_use(call.connection),
            self._admit(context, call) as admission,
            self._rules.time_limit(),
        ):
            requests = each_message(handler.request_deserializer, context, call, admission)
            async for response in handler.stream_stream(requests, context):
                answer = await serialise(response, self._rules.limits.max_response_bytes)
                call.response_bytes += len(answer)
                admission.add(COPIES * len(answer))
                await write(answer, context, call, self._rules)
                admission.add(-COPIES * len(answer))
        at_end(context, self._rules.give_up_later(call).close)

    def _admit(self, context: Context, call: Call) -> AbstractContextManager[Admission]:
        """Give the call its place inside."""
        caller = self._rules.gate.callers.find(call.caller, call.peer)
        return self._rules.gate.admit(caller, functools.partial(at_end, context))


async def _refuse_method(call: Call, method: str) -> None:
    call.asked = re.sub(r"[^\w./-]", "?", method, flags=re.ASCII)[:_MAX_METHOD_LENGTH]
    raise UnknownMethodError

"""What every call passes on its way to a service: who calls, whether there is room, how long it may take."""

import asyncio
import functools
import inspect
import itertools
import logging
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2

from gateway.admission import Admission, Gate, HeavyItemError
from gateway.call import REQUEST_ID, Call, observe
from gateway.call_context import Context, Metadata, at_end, metadata_of, read, subject_of
from gateway.callers import Caller
from gateway.connections import close_connection, in_use
from gateway.errors import (
    DeadlineExceededError,
    End,
    Fault,
    InvalidArgumentError,
    MessageTooLargeError,
    StatusError,
    UnknownMethodError,
    end_of,
    forget_frames,
)
from gateway.health import HEALTH
from gateway.loopback import Loopback, is_loopback
from gateway.message_pieces import pieces_of
from gateway.message_structure import MAX_GROWTH, structure_bytes
from gateway.trusted_proxies import NO_PROXIES, TrustedProxies

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")


# Of a message while it is parsed, and of what services take out of it; of an answer while gRPC has it.
COPIES = 2
# Work on so many bytes stops the event loop for a millisecond or so.
PIECE_BYTES = 1 << 20
_END_S = 0.05
UNKNOWN_METHOD = "unknown"
"""The name of all methods that do not exist, in the log and the metrics."""
_MAX_METHOD_LENGTH = 100
# An item's request id is that of its stream and a number, and as long as those of calls may be.
_MAX_STREAM_ID = 110


@dataclass(frozen=True, slots=True)
class Limits:
    """Most seconds that a call may take, of these until its message is here, and then to take its answer."""

    max_call_s: float
    max_receive_s: float
    max_send_s: float
    max_message_bytes: int
    max_response_bytes: int


class Authenticator(Protocol):
    """Knows callers by what they send."""

    def authenticate(self, metadata: Metadata) -> str:
        """Return the caller's name. Raise StatusError with UNAUTHENTICATED if there is none."""


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Guards every method except those of health, which probes call without a key.

    A `StatusError` becomes its status, and anything unexpected INTERNAL without its text.
    """

    def __init__(
        self,
        gate: Gate,
        limits: Limits,
        authenticator: Authenticator | None,
        loopback: Loopback | None = None,
        proxies: TrustedProxies = NO_PROXIES,
    ) -> None:
        self._gate = gate
        self._limits = limits
        self._authenticator = authenticator
        self._loopback = loopback
        self._proxies = proxies
        self._cut_off_s = math.inf
        self._streams: set[Stream] = set()

    def stop(self, grace_s: float) -> None:
        """Ask streams to end, and take note that gRPC ends all that is there after so many seconds."""
        loop = asyncio.get_running_loop()
        # A little earlier: gRPC has a clock of its own.
        self._cut_off_s = loop.time() + grace_s - _END_S
        # A little later: callers that come again at once are then sent to other servers.
        loop.call_later(_END_S, self._stop_streams)

    def _stop_streams(self) -> None:
        for stream in list(self._streams):
            stream.stop()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if method.startswith(f"/{HEALTH}/"):
            return handler
        if handler is None:

            async def refuse(messages: AsyncIterator[bytes], context: Context) -> None:
                await self._guard(UNKNOWN_METHOD, context, lambda call: _refuse_method(call, method))

            return grpc.stream_stream_rpc_method_handler(refuse)
        if handler.unary_unary is not None:

            async def answer(messages: AsyncIterator[bytes], context: Context) -> bytes | None:
                return await self._guard(method, context, lambda call: self._answer(handler, context, call))

            # A stream of one message, which is read here: a call is refused before its message is received.
            return grpc.stream_unary_rpc_method_handler(answer)

        if handler.stream_stream is None:
            raise NotImplementedError(f"{method}: methods with a stream on one side only have no guard")

        # A generator answers messages with messages. A coroutine reads and writes as it likes, for long.
        answer_all = self._answer_each
        if inspect.iscoroutinefunction(handler.stream_stream):

            def find(other: str) -> Awaitable[Any]:
                details: Any = type(handler_call_details)
                return continuation(details(other, handler_call_details.invocation_metadata))

            answer_all = functools.partial(self._serve_stream, find)

        async def answer_each(messages: AsyncIterator[bytes], context: Context) -> None:
            await self._guard(method, context, lambda call: answer_all(handler, context, call))

        # A coroutine that writes and no generator, outside of which a time limit inside it would strike.
        return grpc.stream_stream_rpc_method_handler(answer_each)

    async def _guard(
        self, method: str, context: Context, work: Callable[[Call], Awaitable[Answer]]
    ) -> Answer | None:
        """Do a call's work. Its errors become the call's status; then there is no answer."""
        with observe(method, metadata_of(context), self._connection(context), self._proxies) as call:
            call.certificate = subject_of(context)
            try:
                answer = await work(call)
                context.set_trailing_metadata(((REQUEST_ID, call.request_id),))
                return answer
            except asyncio.CancelledError as error:
                # gRPC cancels at the caller's deadline, and when it hangs up.
                remaining = context.time_remaining()
                if call.end.fault == "none":
                    call.end = end_of(
                        error,
                        is_late=remaining is not None and remaining <= 0,
                        is_stopped=self._is_cut_off(),
                    )
                forget_frames(error)
                raise
            except StatusError as error:
                call.end = end_of(error)
                status = error.to_status(call.request_id)
                forget_frames(error)
            except Exception as error:
                # The text may name paths or other callers' data: it goes to the log alone.
                logger.exception("%s failed", method)
                call.end = end_of(error)
                status = _unexpected(call.end).to_status(call.request_id)
                forget_frames(error)
        await context.abort_with_status(status)
        return None

    def _is_cut_off(self) -> bool:
        return asyncio.get_running_loop().time() >= self._cut_off_s

    async def _answer(self, handler: Any, context: Context, call: Call) -> bytes:
        self._authenticate(context, call)
        with self._admit(context, call) as admission:
            async with self._time_limit():
                async with admission.arriving():
                    data = await self._receive(context, call)
                    call.request_bytes = len(data)
                    request, _ = await _parse(handler.request_deserializer, data, admission)
                    del data  # the message has a copy
                response = await handler.unary_unary(request, context)
                del request
                answer = await self._serialise(response)
                call.response_bytes = len(answer)
                admission.hold_only(COPIES * len(answer))
                return answer

    async def _answer_each(self, handler: Any, context: Context, call: Call) -> None:
        """Answer a stream, which has a place and a time limit as any call has."""
        self._authenticate(context, call)
        with self._admit(context, call) as admission:
            async with self._time_limit():
                messages = _messages(handler.request_deserializer, context, call, admission)
                async for response in handler.stream_stream(messages, context):
                    answer = await self._serialise(response)
                    call.response_bytes += len(answer)
                    admission.add(COPIES * len(answer))
                    await self._write(answer, context, call)
                    admission.add(-COPIES * len(answer))

    async def _serve_stream(
        self, find: Callable[[str], Awaitable[Any]], handler: Any, context: Context, call: Call
    ) -> None:
        """Serve a stream whose messages are calls of their own: it has no place and no time limit itself."""
        self._authenticate(context, call)
        call.is_stream = True
        caller = self._gate.callers.find(call.caller, call.peer)
        async with self._gate.stream(caller):
            with in_use(call.connection):
                stream = Stream(self, find, context, call, caller)
                self._streams.add(stream)
                try:
                    await handler.stream_stream(stream, context)
                finally:
                    self._streams.discard(stream)
        loop, seconds = asyncio.get_running_loop(), self._limits.max_send_s
        at_end(context, loop.call_later(seconds, _give_up, call, seconds).cancel)

    async def _write(self, answer: bytes, context: Context, call: Call) -> None:
        """Send one message of a stream, whose caller has a limited time to take it.

        While gRPC sends, it cannot end the call, not even with an error: a call that is cancelled goes on
        until the message is taken, or the connection is closed.
        """
        loop, seconds = asyncio.get_running_loop(), self._limits.max_send_s
        timer = loop.call_later(seconds, _give_up, call, seconds)
        writing = asyncio.ensure_future(context.write(answer))
        cancelled: BaseException | None = None
        try:
            while not writing.done():
                try:
                    await asyncio.wait([writing])
                except asyncio.CancelledError as cancellation:
                    cancelled = cancellation
        finally:
            timer.cancel()
        failure = writing.exception()
        if failure is not None and cancelled is None:
            # The caller is lost: gRPC cancels the call a moment later.
            await asyncio.sleep(_END_S)
        if error := cancelled or failure:
            raise error

    @contextmanager
    def _admit(self, context: Context, call: Call) -> Iterator[Admission]:
        """Give the call its place inside, and its caller a limited time to take the answer after that."""
        caller = self._gate.callers.find(call.caller, call.peer)
        with (
            in_use(call.connection),
            self._gate.admit(caller, lambda done: at_end(context, done)) as admission,
        ):
            yield admission
        loop, seconds = asyncio.get_running_loop(), self._limits.max_send_s
        at_end(context, loop.call_later(seconds, _give_up, call, seconds).cancel)

    async def _serialise(self, response: Message) -> bytes:
        """Return an answer's bytes. They are written in pieces, and the event loop goes on in between."""
        limit, pieces, size, turn = self._limits.max_response_bytes, [], 0, 0
        for piece in pieces_of(response):
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise InvalidArgumentError(
                    "request", f"would make an answer of over {limit} bytes, the limit"
                )
            if size > turn + PIECE_BYTES:
                turn = size
                await asyncio.sleep(0)
        return b"".join(pieces)

    def _time_limit(self) -> AbstractAsyncContextManager[None]:
        seconds = self._limits.max_call_s
        message = f"the server gives a call {seconds:g} seconds, and this took longer"
        return _limit(seconds, message, "MAX_CALL_TIME", "server")

    async def _receive(self, context: Context, call: Call) -> bytes:
        """Return the call's one message. Callers that never send it must not keep the places of others."""
        seconds, loop = self._limits.max_receive_s, asyncio.get_running_loop()
        start = loop.time()
        message = f"the request did not arrive within {seconds:g} seconds"
        async with _limit(seconds, message, "MAX_RECEIVE_TIME", "caller"):
            data = await read(context)
        if data is None:
            is_at_once = loop.time() < start + _END_S
            try:
                # A call that breaks looks like this too, and is cancelled a moment later.
                await asyncio.sleep(_END_S)
            except asyncio.CancelledError:
                # gRPC does not tell why. It refuses what is too large as soon as it sees the message's size;
                # callers that leave in the middle of their message do so later.
                if is_at_once:
                    call.end = end_of(MessageTooLargeError(self._limits.max_message_bytes))
                raise
            raise StatusError(
                grpc.StatusCode.INVALID_ARGUMENT, "the request has no message", reason="NO_MESSAGE"
            )
        return data

    def _connection(self, context: Context) -> str:
        """Return gRPC's name for the other end of the connection: of the HTTP front's caller, not of it."""
        peer = context.peer()
        if self._loopback is not None and is_loopback(peer):
            return self._loopback.peer(metadata_of(context)) or peer
        return peer

    def _authenticate(self, context: Context, call: Call) -> None:
        if self._loopback is not None and is_loopback(context.peer()):
            self._loopback.check(metadata_of(context))
        if self._authenticator is not None:
            call.caller = self._authenticator.authenticate(metadata_of(context))


class Stream:
    """A stream under way, of whose messages each may be a call of its own."""

    def __init__(
        self,
        interceptor: CallInterceptor,
        find: Callable[[str], Awaitable[Any]],
        context: Context,
        call: Call,
        caller: Caller,
    ) -> None:
        self._interceptor = interceptor
        self._find = find
        self._context = context
        self._call = call
        self._caller = caller
        self._metadata = metadata_of(context)
        self._handlers: dict[str, Any] = {}
        self._reading: asyncio.Future[bytes | None] | None = None
        self._numbers = itertools.count(1)
        self.is_stopping = False
        """Whether no message is read any more."""

    def stop(self) -> None:
        """Read no more messages. One that is half here is not read either."""
        self.is_stopping = True
        if self._reading is not None:
            self._reading.cancel()

    async def read_first(self, kind: type[Message]) -> Message | None:
        """Return the first message, None where there is none. It must come soon, as that of a call."""
        limits = self._interceptor._limits
        message = f"the first message did not arrive within {limits.max_receive_s:g} seconds"
        async with _limit(limits.max_receive_s, message, "MAX_RECEIVE_TIME", "caller"):
            data = await self.read()
        if data is None:
            return None
        structure_bytes(data, kind)
        first: Message = _parsed(kind.FromString, data)
        return first

    async def read(self) -> bytes | None:
        """Return the next message, None after the last and when the stream is stopped.

        Raises UnauthenticatedError once the caller's key is revoked.
        """
        if self.is_stopping:
            return None
        self._reading = asyncio.ensure_future(read(self._context))
        try:
            data = await self._reading
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self.is_stopping and not (task and task.cancelling()):
                return None
            raise
        if data is not None:
            self._interceptor._authenticate(self._context, self._call)
            self._call.request_bytes += len(data)
        return data

    async def write(self, message: bytes) -> None:
        """Send a message; the caller has a limited time to take it."""
        await self._interceptor._write(message, self._context, self._call)
        self._call.response_bytes += len(message)

    async def answer(
        self,
        method: str,
        data: bytes,
        parse: Callable[[bytes], Any],
        kind: type[Message],
        admitted: Callable[[], None],
    ) -> "ItemAnswer":
        """Answer a message as the unary `method` would, once there is a place and memory for it.

        `parse` makes the method's request of the message, which is of this kind. `admitted` is called once
        its bytes are counted.
        """
        counts, number = self._call.counts, next(self._numbers)
        counts["items"] = number
        request_id = f"{self._call.request_id[:_MAX_STREAM_ID]}.{number}"
        taken: list[Callable[[], None]] = []
        with observe(
            method,
            {**self._metadata, REQUEST_ID: request_id},
            self._call.connection,
            self._interceptor._proxies,
        ) as call:
            call.caller, call.certificate, call.is_item = self._call.caller, self._call.certificate, True
            try:
                async with self._interceptor._gate.admit_item(self._caller, taken.append) as admission:
                    call.request_bytes = len(data)
                    size = COPIES * len(data) + MAX_GROWTH * structure_bytes(data, kind)
                    await admission.reserve(size)
                    admitted()
                    handler = await self._handler(method)
                    async with self._interceptor._time_limit():
                        request = _parsed(parse, data)
                        del data
                        response = await self._respond(handler, request, admission)
                        del request
                        answer = await self._interceptor._serialise(response)
                        del response
                    call.response_bytes = len(answer)
                    admission.hold_only(COPIES * len(answer))
                    return ItemAnswer(request_id, answer, taken)
            except asyncio.CancelledError as error:
                call.end = end_of(error, is_stopped=self._interceptor._is_cut_off())
                _done(taken)
                forget_frames(error)
                raise
            except StatusError as error:
                call.end = end_of(error)
                status = error.to_message(call.request_id)
                forget_frames(error)
            except Exception as error:
                logger.exception("%s failed", method)
                call.end = end_of(error)
                status = _unexpected(call.end).to_message(call.request_id)
                forget_frames(error)
        _done(taken)
        counts["failed_items"] = counts.get("failed_items", 0) + 1
        return ItemAnswer(request_id, status, [])

    async def _handler(self, method: str) -> Any:
        """Return what answers a unary method."""
        if method not in self._handlers:
            self._handlers[method] = await self._find(method)
        return self._handlers[method]

    async def _respond(self, handler: Any, request: Message, admission: Admission) -> Message:
        try:
            response: Message = await handler.unary_unary(request, self._context)
        except HeavyItemError:
            await admission.take_wanted_places()
            response = await handler.unary_unary(request, self._context)
        return response


@dataclass(slots=True)
class ItemAnswer:
    """The answer of an item: the bytes of its response, or its error."""

    request_id: str
    outcome: bytes | status_pb2.Status
    _taken: list[Callable[[], None]]

    def taken(self) -> None:
        """Count the answer's bytes no more: the caller has it."""
        _done(self._taken)


def _done(functions: list[Callable[[], None]]) -> None:
    while functions:
        functions.pop()()


@asynccontextmanager
async def _limit(seconds: float, message: str, reason: str, fault: Fault) -> AsyncIterator[None]:
    """Raise DEADLINE_EXCEEDED after so many seconds. A TimeoutError of the work inside is left alone."""
    timeout = asyncio.timeout(seconds)
    try:
        async with timeout:
            yield
    except TimeoutError as error:
        if not timeout.expired():
            raise
        raise DeadlineExceededError(message, reason, fault) from error


async def _refuse_method(call: Call, method: str) -> None:
    call.asked = re.sub(r"[^\w./-]", "?", method, flags=re.ASCII)[:_MAX_METHOD_LENGTH]
    raise UnknownMethodError


async def _messages(parse: Any, context: Context, call: Call, admission: Admission) -> AsyncIterator[Message]:
    """Yield the messages of a stream. Each is counted until the next is read."""
    while (data := await read(context)) is not None:
        call.request_bytes += len(data)
        message, size = await _parse(parse, data, admission)
        del data
        yield message
        admission.add(-size)


async def _parse(parse: Any, data: bytes, admission: Admission) -> tuple[Message, int]:
    """Return a message, and the bytes that are counted for it."""
    is_large = len(data) > PIECE_BYTES
    if is_large:
        await asyncio.sleep(0)  # reading it took its time already
    # A generated class's FromString knows its class.
    structure = structure_bytes(data, parse.__self__)
    size = COPIES * len(data) + MAX_GROWTH * structure
    admission.add(size)
    if is_large:
        await asyncio.sleep(0)
    return _parsed(parse, data), size


def _parsed(parse: Any, data: bytes) -> Any:
    try:
        return parse(data)
    except DecodeError as error:
        raise InvalidArgumentError("request", "is not a message of this method") from error


def _unexpected(end: End) -> StatusError:
    return StatusError(end.code, "internal error: the server's log says more", reason=end.reason)


def _give_up(call: Call, seconds: float) -> None:
    """End a call whose caller does not take the answer, the only way there is."""
    if close_connection(call.connection, "answer"):
        logger.warning(
            "request %s: %s has not taken the answer of %s within %g seconds: its connection is closed",
            *(call.request_id, call.connection, call.method, seconds),
        )

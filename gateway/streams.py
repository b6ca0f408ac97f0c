"""Streams whose messages are calls of their own: each has its place, bytes, time limit and log line."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from google.rpc import status_pb2

from gateway.admission import Admission, HeavyItemError
from gateway.alarms import limit
from gateway.call import REQUEST_ID, Call, observe
from gateway.call_context import Context, at_end, metadata_of, read
from gateway.call_ending import ending
from gateway.call_messages import COPIES, parsed, serialise, write
from gateway.call_rules import CallRules
from gateway.callers import Caller
from gateway.connections import in_use
from gateway.message_structure import MAX_GROWTH, structure_bytes

# An item's request id is that of its stream and a number, and as long as those of calls may be.
_MAX_STREAM_ID = 110


class Streams:
    """The streams of one server that are under way."""

    def __init__(self, rules: CallRules) -> None:
        self._rules = rules
        self._under_way: set[Stream] = set()

    def stop(self) -> None:
        """Ask all streams to end."""
        for stream in list(self._under_way):
            stream.stop()

    async def serve(
        self, find: Callable[[str], Awaitable[Any]], handler: Any, context: Context, call: Call
    ) -> None:
        """Serve a stream whose messages are calls of their own: it has no place and no time limit itself."""
        self._rules.authenticate(context, call)
        call.is_stream = True
        caller = self._rules.gate.callers.find(call.caller, call.peer)
        async with self._rules.gate.stream(caller):
            with in_use(call.connection):
                stream = Stream(self._rules, find, context, call, caller)
                self._under_way.add(stream)
                try:
                    await handler.stream_stream(stream, context)
                finally:
                    self._under_way.discard(stream)
        at_end(context, self._rules.give_up_later(call).close)


class Stream:
    """A stream under way, of whose messages each may be a call of its own."""

    def __init__(
        self,
        rules: CallRules,
        find: Callable[[str], Awaitable[Any]],
        context: Context,
        call: Call,
        caller: Caller,
    ) -> None:
        self._rules = rules
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
        limits = self._rules.limits
        words = "the first message did not arrive within {:g} seconds"
        with limit(limits.max_receive_s, words, "MAX_RECEIVE_TIME", "caller"):
            data = await self.read()
        if data is None:
            return None
        structure_bytes(data, kind)
        first: Message = parsed(kind.FromString, data)
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
            self._rules.authenticate(self._context, self._call)
            self._call.request_bytes += len(data)
        return data

    async def write(self, message: bytes) -> None:
        """Send a message; the caller has a limited time to take it."""
        await write(message, self._context, self._call, self._rules)
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
            self._rules.proxies,
        ) as call:
            call.caller, call.certificate, call.is_item = self._call.caller, self._call.certificate, True
            with ending(call, self._context, self._rules) as end:
                try:
                    async with self._rules.gate.admit_item(self._caller, taken.append) as admission:
                        call.request_bytes = len(data)
                        size = COPIES * len(data) + MAX_GROWTH * structure_bytes(data, kind)
                        await admission.reserve(size)
                        admitted()
                        handler = await self._handler(method)
                        with self._rules.time_limit():
                            request = parsed(parse, data)
                            del data
                            response = await self._respond(handler, request, admission)
                            del request
                            answer = await serialise(response, self._rules.limits.max_response_bytes)
                            del response
                        call.response_bytes = len(answer)
                        admission.hold_only(COPIES * len(answer))
                        return ItemAnswer(request_id, answer, taken)
                except BaseException:
                    _done(taken)
                    raise
        assert end.error is not None
        counts["failed_items"] = counts.get("failed_items", 0) + 1
        return ItemAnswer(request_id, end.error.to_message(call.request_id), [])

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

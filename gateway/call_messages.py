"""The messages of calls, between gRPC's bytes and the services. Bytes are counted before they are parsed."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from gateway.admission import Admission
from gateway.alarms import Alarms, limit
from gateway.call import Call
from gateway.call_context import Context, read, send
from gateway.call_rules import END_S, CallRules, Limits
from gateway.errors import InvalidArgumentError, MessageTooLargeError, StatusError, end_of
from gateway.message_pieces import pieces_of
from gateway.message_structure import MAX_GROWTH, structure_bytes

COPIES = 2
"""A message exists so many times while it is parsed and read, and an answer while gRPC has it."""
# Work on so many bytes stops the event loop for a millisecond or so.
_PIECE_BYTES = 1 << 20


async def receive(context: Context, call: Call, limits: Limits, alarms: Alarms) -> bytes:
    """Return the call's one message. Callers that never send it must not keep the places of others."""
    seconds, loop = limits.max_receive_s, asyncio.get_running_loop()
    start = loop.time()
    words = "the request did not arrive within {:g} seconds"
    with limit(seconds, words, "MAX_RECEIVE_TIME", "caller", alarms):
        data = await read(context)
    if data is None:
        is_at_once = loop.time() < start + END_S
        try:
            # A call that breaks looks like this too, and is cancelled a moment later.
            await asyncio.sleep(END_S)
        except asyncio.CancelledError:
            # gRPC does not tell why. It refuses what is too large as soon as it sees the message's size;
            # callers that leave in the middle of their message do so later.
            if is_at_once:
                call.end = end_of(MessageTooLargeError(limits.max_message_bytes))
            raise
        raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, "the request has no message", reason="NO_MESSAGE")
    return data


async def each_message(
    parse: Any, context: Context, call: Call, admission: Admission
) -> AsyncIterator[Message]:
    """Yield the messages of a stream. Each is counted until the next is read."""
    while (data := await read(context)) is not None:
        call.request_bytes += len(data)
        message, size = await parse_counted(parse, data, admission)
        del data
        yield message
        admission.add(-size)


async def parse_counted(parse: Any, data: bytes, admission: Admission) -> tuple[Message, int]:
    """Return a message, and the bytes that are counted for it."""
    is_large = len(data) > _PIECE_BYTES
    if is_large:
        await asyncio.sleep(0)  # reading it took its time already
    # A generated class's FromString knows its class.
    structure = structure_bytes(data, parse.__self__)
    size = COPIES * len(data) + MAX_GROWTH * structure
    admission.add(size)
    if is_large:
        await asyncio.sleep(0)
    return parsed(parse, data), size


def parsed(parse: Any, data: bytes) -> Any:
    """Return a message. Raises InvalidArgumentError if the bytes are none."""
    try:
        return parse(data)
    except DecodeError as error:
        raise InvalidArgumentError("request", "is not a message of this method") from error


async def serialise(response: Message, max_bytes: int) -> bytes:
    """Return an answer's bytes. They are written in pieces, and the event loop goes on in between."""
    pieces, size, turn = [], 0, 0
    for piece in pieces_of(response):
        pieces.append(piece)
        size += len(piece)
        if size > max_bytes:
            raise InvalidArgumentError(
                "request", f"would make an answer of over {max_bytes} bytes, the limit"
            )
        if size > turn + _PIECE_BYTES:
            turn = size
            await asyncio.sleep(0)
    return b"".join(pieces)


async def write(answer: bytes, context: Context, call: Call, rules: CallRules) -> None:
    """Send one message of a stream, whose caller has a limited time to take it.

    While gRPC sends, it cannot end the call, not even with an error: a call that is cancelled goes on
    until the message is taken, or the connection is closed.
    """
    alarms = rules.give_up_later(call)
    writing = asyncio.ensure_future(send(context, answer))
    cancelled: BaseException | None = None
    try:
        while not writing.done():
            try:
                await asyncio.wait([writing])
            except asyncio.CancelledError as cancellation:
                cancelled = cancellation
    finally:
        alarms.close()
    if cancelled is not None:
        raise cancelled
    if writing.cancelled():
        # gRPC is about to cancel the call itself.
        await asyncio.sleep(END_S)
    writing.result()

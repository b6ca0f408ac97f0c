"""What gRPC knows of a call under way, and what it is asked to do with it.

gRPC's own errors of a call say that there is none any more: its connection broke, or the server has stopped.
gRPC cancels such a call, perhaps a moment later. Here these errors are cancellations at once.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast

import grpc.aio

Context = grpc.aio.ServicerContext[Any, Any]
Metadata = Mapping[str, str]

_MAX_SUBJECT_LENGTH = 200


def subject_of(context: Context) -> str:
    """Return the subject of the certificate that a caller has shown; empty if it has shown none."""
    subject = b", ".join(context.auth_context().get("x509_subject", ()))
    text = "".join(c if c.isprintable() else "?" for c in subject.decode(errors="replace"))
    return text[:_MAX_SUBJECT_LENGTH]


def metadata_of(context: Context) -> Metadata:
    """Return what the caller sent beside the message, except for binary values."""
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


async def read(context: Context) -> bytes | None:
    """Return the caller's next message, or None after the last.

    The iterator that a handler gets is not used: unless it is read to its end, it is in a cycle with itself,
    and keeps the message until the cyclic garbage collector runs.
    """
    try:
        data = await context.read()
    except grpc.aio.BaseError as error:
        raise asyncio.CancelledError from error
    return None if data is grpc.aio.EOF else cast(bytes, data)


async def send(context: Context, message: bytes) -> None:
    """Send a message of a stream."""
    try:
        await context.write(message)
    except grpc.aio.BaseError as error:
        raise asyncio.CancelledError from error


async def abort(context: Context, status: grpc.Status) -> None:
    """End the call with a status and no answer. It raises gRPC's AbortError."""
    try:
        await context.abort_with_status(status)
    except grpc.aio.AbortError:
        raise
    except grpc.aio.BaseError as error:
        raise asyncio.CancelledError from error


def at_end(context: Context, done: Callable[[], None]) -> None:
    """Call `done` once the call is over: its caller has taken the answer, or has left."""
    context.add_done_callback(lambda _context: done())  # type: ignore[arg-type]

"""What happens around a call, with a real server and a method that does as it is told."""

import asyncio
import contextlib
import logging
import sys
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from prometheus_client import REGISTRY

from gateway import call_messages, message_structure
from gateway.admission import Gate
from gateway.call_context import Metadata
from gateway.call_rules import CallRules, Limits
from gateway.errors import InvalidArgumentError, OverloadedError, TritonUnavailableError, UnauthenticatedError
from gateway.interceptor import CallInterceptor
from gateway.message_structure import structure_bytes

METHOD = "/test.Service/Method"
MAX_MESSAGE_BYTES = 1000
MAX_BYTES = 100_000_000
SMALL = StringValue(value="small").SerializeToString()
Method = Callable[[StringValue, Any], Awaitable[StringValue]]


class OneKey:
    """Knows one caller."""

    def authenticate(self, metadata: Metadata) -> str:
        key = metadata.get("x-api-key")
        if key != "right":
            raise UnauthenticatedError("no such key", "KEY_UNKNOWN" if key else "KEY_MISSING")
        return "somebody"


def gate_of(calls: int, max_bytes: int = MAX_BYTES) -> Gate:
    return Gate(calls, max_bytes, MAX_MESSAGE_BYTES)


@asynccontextmanager
async def serving(
    method: Method,
    *,
    gate: Gate | None = None,
    max_call_s: float = 60,
    max_receive_s: float = 60,
    max_send_s: float = 60,
    max_response_bytes: int = 1 << 30,
    authenticator: OneKey | None = None,
) -> AsyncIterator[Any]:
    limits = Limits(max_call_s, max_receive_s, max_send_s, MAX_MESSAGE_BYTES, max_response_bytes)
    guard = CallInterceptor(CallRules(gate or gate_of(10), limits, authenticator))
    handler = grpc.unary_unary_rpc_method_handler(
        method, StringValue.FromString, StringValue.SerializeToString
    )
    async with connected(guard, handler) as channel:
        yield channel


@asynccontextmanager
async def connected(interceptor: CallInterceptor, handler: Any) -> AsyncIterator[Any]:
    """A channel to a server whose one method has this handler."""
    options = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)]
    server = grpc.aio.server(interceptors=[interceptor], options=options)
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("test.Service", {"Method": handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    unlimited = [("grpc.max_receive_message_length", -1)]
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=unlimited) as channel:
            yield channel
    finally:
        await server.stop(None)


async def log_lines(caplog: pytest.LogCaptureFixture, count: int) -> list[dict[str, Any]]:
    """The log's lines of calls, once there are so many: a caller may know the end before it is logged."""
    while True:
        lines = [record.fields for record in caplog.records if record.name == "gateway.calls"]  # type: ignore[attr-defined]
        if len(lines) >= count:
            return lines
        await asyncio.sleep(0.01)


async def echo(request: StringValue, context: Any) -> StringValue:
    return request


async def ask(
    channel: Any, data: bytes = StringValue(value="hello").SerializeToString(), **options: Any
) -> bytes:
    answer: bytes = await channel.unary_unary(METHOD)(data, **options)
    return answer


async def failure(channel: Any, *arguments: Any, **options: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(channel, *arguments, **options)
    return caught.value


def details(error: grpc.aio.AioRpcError, kind: Any) -> Any:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None
    [found] = [detail for detail in status.details if detail.Is(kind.DESCRIPTOR)]
    found.Unpack(kind)
    return kind


async def test_answers_come_through_with_the_callers_request_id() -> None:
    async with serving(echo) as channel:
        call = channel.unary_unary(METHOD)(
            StringValue(value="hello").SerializeToString(), metadata=(("x-request-id", "mine"),)
        )
        assert StringValue.FromString(await call).value == "hello"
        assert dict(await call.trailing_metadata())["x-request-id"] == "mine"


async def test_expected_errors_keep_status_and_details() -> None:
    async def refuse(request: StringValue, context: Any) -> StringValue:
        raise InvalidArgumentError("field", "is wrong")

    async with serving(refuse) as channel:
        error = await failure(channel, metadata=(("x-request-id", "mine"),))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details(error, error_details_pb2.BadRequest()).field_violations[0].field == "field"
    assert details(error, error_details_pb2.RequestInfo()).request_id == "mine"


async def test_unexpected_errors_tell_callers_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(request: StringValue, context: Any) -> StringValue:
        raise RuntimeError("/secret/path")

    async with serving(fail) as channel:
        error = await failure(channel)
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(error)
    assert "/secret/path" in caplog.text


async def test_why_triton_failed_is_for_the_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gateway.calls")

    async def fail(request: StringValue, context: Any) -> StringValue:
        try:
            raise RuntimeError("Connection refused by 10.0.0.7")
        except RuntimeError as error:
            raise TritonUnavailableError("model sam cannot be reached") from error

    async with serving(fail) as channel:
        error = await failure(channel)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "10.0.0.7" not in str(error)
    [line] = await log_lines(caplog, 1)
    assert line["cause"] == "Connection refused by 10.0.0.7"


async def test_a_request_is_let_go_with_its_call(
    without_cycle_search: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[bytes] = []

    def look(data: bytes, kind: type[Message]) -> int:
        received.append(data)
        return structure_bytes(data, kind)

    monkeypatch.setattr(call_messages, "structure_bytes", look)
    during: list[int] = []

    async def count(request: StringValue, context: Any) -> StringValue:
        during.append(sys.getrefcount(received[0]))
        return request

    async with serving(count) as channel:
        await ask(channel)
        await asyncio.sleep(0.1)  # until the server, too, is at its end
        after = sys.getrefcount(received[0])
    assert during == [2], "the bytes are kept beside the message that was made of them"
    assert after == 2, "somebody but the list and the function asked knows the request"


@pytest.mark.parametrize("is_late", [False, True])
async def test_what_a_failed_call_held_is_let_go_at_once(is_late: bool, without_cycle_search: None) -> None:
    """Images and tensors are megabytes: those of a hundred calls must not wait for Python's search."""
    held: list[weakref.ref[set[int]]] = []

    async def fail(request: StringValue, context: Any) -> StringValue:
        image = {1}
        held.append(weakref.ref(image))
        if is_late:
            await asyncio.sleep(60)
        raise InvalidArgumentError("field", "is wrong")

    async with serving(fail) as channel:
        await failure(channel, timeout=0.2)
        await asyncio.sleep(0.1)  # until the server, too, is at its end
    assert [reference() for reference in held] == [None]


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe"])
async def test_bytes_that_are_no_message(data: bytes) -> None:
    async with serving(echo) as channel:
        assert (await failure(channel, data)).code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_call_without_a_message() -> None:
    async with serving(echo) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="has no message") as caught:
            await channel.stream_unary(METHOD)(iter([]))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_message_that_is_too_large_never_arrives() -> None:
    async with serving(echo) as channel:
        error = await failure(channel, StringValue(value="x" * 2000).SerializeToString())
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "1000" in (error.details() or "")
        await ask(channel)


async def test_a_caller_that_sends_nothing_does_not_keep_its_place() -> None:
    gate = gate_of(1)
    async with serving(echo, gate=gate, max_receive_s=0.05) as channel:
        idle = channel.stream_unary(METHOD)()
        with pytest.raises(grpc.aio.AioRpcError, match=r"within 0\.05 seconds") as caught:
            await idle
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await ask(channel)


async def test_a_full_server_refuses_before_it_receives() -> None:
    entered, leave = asyncio.Event(), asyncio.Event()
    received = []

    async def wait(request: StringValue, context: Any) -> StringValue:
        received.append(request.value)
        entered.set()
        await leave.wait()
        return request

    async with serving(wait, gate=gate_of(1)) as channel:
        first = asyncio.create_task(ask(channel))
        await entered.wait()
        # Not even one that is too large is looked at.
        error = await failure(channel, StringValue(value="x" * 2000).SerializeToString())
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert details(error, error_details_pb2.RetryInfo()).HasField("retry_delay")
        assert details(error, error_details_pb2.ErrorInfo()).reason == "OVERLOADED"
        leave.set()
        await first
        await ask(channel)
    assert received == ["hello", "hello"]


async def test_places_of_cancelled_calls_are_free_again() -> None:
    entered, cancelled = asyncio.Event(), asyncio.Event()

    async def wait(request: StringValue, context: Any) -> StringValue:
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return request

    async with serving(wait, gate=gate_of(1)) as channel:
        for _ in range(3):
            entered.clear()
            cancelled.clear()
            call = asyncio.create_task(ask(channel))
            await entered.wait()
            call.cancel()
            await cancelled.wait()


async def test_the_deadline_of_the_caller_cancels_the_work() -> None:
    cancelled = asyncio.Event()

    async def wait(request: StringValue, context: Any) -> StringValue:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return request

    async with serving(wait) as channel:
        assert (await failure(channel, timeout=0.1)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await cancelled.wait()


async def test_calls_without_a_deadline_have_the_servers() -> None:
    async def wait(request: StringValue, context: Any) -> StringValue:
        await asyncio.Event().wait()
        return request

    async with serving(wait, max_call_s=0.05) as channel:
        error = await failure(channel)
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "0.05 seconds" in (error.details() or "")


async def test_a_timeout_inside_the_work_is_no_deadline_of_the_call() -> None:
    async def fail(request: StringValue, context: Any) -> StringValue:
        raise TimeoutError("some socket")

    async with serving(fail) as channel:
        assert (await failure(channel)).code() is grpc.StatusCode.INTERNAL


async def test_who_is_not_known_does_not_get_in() -> None:
    received = []

    async def count(request: StringValue, context: Any) -> StringValue:
        received.append(request)
        return request

    async with serving(count, authenticator=OneKey()) as channel:
        error = await failure(channel, metadata=(("x-api-key", "wrong"),))
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert not received
        await ask(channel, metadata=(("x-api-key", "right"),))
        assert len(received) == 1


@asynccontextmanager
async def streaming(gate: Gate, max_call_s: float, authenticator: OneKey | None = None) -> AsyncIterator[Any]:
    """A method that echoes a stream; the message `break` breaks it."""

    async def echo_each(messages: AsyncIterator[StringValue], context: Any) -> AsyncIterator[StringValue]:
        async for message in messages:
            if message.value == "break":
                raise KeyError("secret")
            yield message

    handler = grpc.stream_stream_rpc_method_handler(
        echo_each, StringValue.FromString, StringValue.SerializeToString
    )
    limits = Limits(max_call_s, 60, 60, MAX_MESSAGE_BYTES, 1 << 20)
    guard = CallInterceptor(CallRules(gate, limits, authenticator))
    async with connected(guard, handler) as channel:
        yield channel.stream_stream(METHOD, StringValue.SerializeToString, StringValue.FromString)


async def test_streams_have_places_and_give_them_back() -> None:
    gate = gate_of(2)
    async with streaming(gate, 60) as echo_each:
        calls = [echo_each() for _ in range(2)]
        for call in calls:
            await call.write(StringValue(value="hello"))
            assert (await call.read()).value == "hello"
        refused = echo_each()
        assert await refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await calls[0].done_writing()
        assert await calls[0].code() is grpc.StatusCode.OK
        assert dict(await calls[0].trailing_metadata())["x-request-id"]
        another = echo_each()
        await another.write(StringValue(value="hello"))
        assert (await another.read()).value == "hello"
        another.cancel()
        calls[1].cancel()


async def test_a_stream_that_nobody_ends_ends_at_the_servers_limit() -> None:
    gate = gate_of(1)
    async with streaming(gate, 0.2) as echo_each:
        for _ in range(2):
            call = echo_each()
            await call.write(StringValue(value="hello"))
            assert (await call.read()).value == "hello"
            assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert "0.2 seconds" in await call.details()


async def test_errors_of_streams_are_those_of_any_call(caplog: pytest.LogCaptureFixture) -> None:
    async with streaming(gate_of(1), 60, OneKey()) as echo_each:
        assert await echo_each().code() is grpc.StatusCode.UNAUTHENTICATED
        call = echo_each(metadata=(("x-api-key", "right"),))
        await call.write(StringValue(value="break"))
        assert await call.code() is grpc.StatusCode.INTERNAL
        assert "secret" not in await call.details()
        assert "secret" in caplog.text


async def test_a_method_with_one_stream_is_refused_at_once_and_not_unguarded() -> None:
    """Nobody has such a method yet. Whoever adds one sees it at the first call."""
    guard = CallInterceptor(CallRules(gate_of(1), Limits(1, 1, 1, 1, 1), None))

    async def continuation(_details: Any) -> Any:
        return grpc.unary_stream_rpc_method_handler(echo)

    details = type("Details", (), {"method": METHOD})()
    with pytest.raises(NotImplementedError, match="no guard"):
        await guard.intercept_service(continuation, details)


async def large(request: StringValue, context: Any) -> StringValue:
    return request if request.value == "small" else StringValue(value="x" * 20_000_000)


async def open_without_reading(channel: Any) -> Any:
    """Ask as a stream would, and never look at the answer: gRPC then passes on a few megabytes at most."""
    call = channel.stream_stream(METHOD)()
    await call.write(StringValue(value="hello").SerializeToString())
    await call.done_writing()
    return call


async def held(gate: Gate) -> bool:
    """Whether the gate still counts bytes: there is no room for all that it allows beside them."""
    with gate.admit() as other:
        try:
            other.add(MAX_BYTES)
        except OverloadedError:
            return True
    return False


async def test_an_answer_that_nobody_takes_stays_counted_until_its_caller_leaves() -> None:
    gate = gate_of(1)
    async with serving(large, gate=gate) as channel:
        call = await open_without_reading(channel)
        await asyncio.sleep(0.2)
        assert await held(gate)
        call.cancel()
        await asyncio.sleep(0.2)
        assert not await held(gate)


async def test_who_does_not_take_an_answer_in_time_loses_its_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = gate_of(2)
    async with serving(large, gate=gate, max_send_s=0.3) as channel:
        call = await open_without_reading(channel)
        await ask(channel, SMALL)  # others are served meanwhile
        await asyncio.sleep(0.8)
        assert not await held(gate)
        assert "has not taken the answer of /test.Service/Method within 0.3 seconds" in caplog.text
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
        caplog.clear()
        await ask(channel, SMALL, wait_for_ready=True)
        await asyncio.sleep(0.5)
        assert not caplog.records, "whoever took its answer has a connection that was closed"


async def test_an_answer_over_the_limit_is_refused() -> None:
    async with serving(large, max_response_bytes=20_000_000) as channel:
        error = await failure(channel)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "over 20000000 bytes" in (error.details() or "")


async def test_a_message_that_would_grow_too_much_is_refused_before_it_is_parsed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(message_structure, "MAX_STRUCTURE_BYTES", 100)
    received = []

    async def count(request: StringValue, context: Any) -> StringValue:
        received.append(request)
        return request

    async with serving(count) as channel:
        error = await failure(channel, StringValue(value="x" * 101).SerializeToString())
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "the limit is 100" in (error.details() or "")
        assert not received


async def test_a_stop_while_a_request_arrives_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with serving(echo) as channel:
        call = channel.stream_unary(METHOD)()
        await call.write(b"")
        sending = channel.stream_unary(METHOD)()
        await asyncio.sleep(0.1)
        sending_is_open = not sending.done()
    assert sending_is_open
    lines = await log_lines(caplog, 2)
    assert all(record.levelno < logging.WARNING for record in caplog.records), caplog.text
    assert lines[-1]["code"] == "CANCELLED"


async def right(channel: Any, **options: Any) -> None:
    await ask(channel, metadata=(("x-api-key", "right"),), **options)


async def wrong(channel: Any) -> None:
    await ask(channel, metadata=(("x-api-key", "wrong"),))


async def too_large(channel: Any) -> None:
    await right(channel, data=bytes(MAX_MESSAGE_BYTES + 1))


async def late(channel: Any) -> None:
    await right(channel, data=StringValue(value="wait").SerializeToString(), timeout=0.2)


async def named(channel: Any, value: str) -> None:
    await right(channel, data=StringValue(value=value).SerializeToString())


async def unknown(channel: Any) -> None:
    await channel.unary_unary("/test.Service/Other")(SMALL)


async def empty(channel: Any) -> None:
    async def nothing() -> AsyncIterator[bytes]:
        return
        yield b""

    await channel.stream_unary(METHOD)(nothing(), metadata=(("x-api-key", "right"),))


async def slow(channel: Any) -> None:
    call = channel.stream_unary(METHOD)(metadata=(("x-api-key", "right"),))
    await call


async def do(request: StringValue, context: Any) -> StringValue:
    match request.value:
        case "wait":
            await asyncio.sleep(60)
        case "refuse":
            raise InvalidArgumentError("value", "is wrong")
        case "triton":
            raise TritonUnavailableError("gone", "gaze") from ValueError("its words")
        case "fail":
            raise RuntimeError("/secret/path")
        case "full":
            raise OverloadedError("full", "calls", 1)
    return request


@pytest.mark.parametrize(
    ("way", "code", "reason", "fault", "about"),
    [
        (right, "OK", "", "", {}),
        (lambda channel: named(channel, "refuse"), "INVALID_ARGUMENT", "", "caller", {"field": "value"}),
        (
            lambda channel: named(channel, "triton"),
            "UNAVAILABLE",
            "TRITON_UNAVAILABLE",
            "server",
            {"model": "gaze", "cause": "its words"},
        ),
        (lambda channel: named(channel, "fail"), "INTERNAL", "UNEXPECTED", "server", {}),
        (
            lambda channel: named(channel, "full"),
            "RESOURCE_EXHAUSTED",
            "OVERLOADED",
            "load",
            {"limit": "calls"},
        ),
        (lambda channel: named(channel, "wait"), "DEADLINE_EXCEEDED", "MAX_CALL_TIME", "server", {}),
        (slow, "DEADLINE_EXCEEDED", "MAX_RECEIVE_TIME", "caller", {}),
        (late, "DEADLINE_EXCEEDED", "CALLER_DEADLINE", "caller", {}),
        (too_large, "RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE", "caller", {"limit": "max_message_bytes"}),
        (ask, "UNAUTHENTICATED", "KEY_MISSING", "caller", {}),
        (wrong, "UNAUTHENTICATED", "KEY_UNKNOWN", "caller", {}),
        (unknown, "UNIMPLEMENTED", "UNKNOWN_METHOD", "caller", {"asked": "/test.Service/Other"}),
        (empty, "INVALID_ARGUMENT", "NO_MESSAGE", "caller", {}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_caller_log_and_metrics_are_told_the_same(
    way: Callable[[Any], Awaitable[None]],
    code: str,
    reason: str,
    fault: str,
    about: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "gateway.calls")
    method = "unknown" if way is unknown else METHOD
    labels = {"method": method, "code": code, "reason": reason, "fault": fault or "none"}

    def counted() -> float:
        return REGISTRY.get_sample_value("visiongate_calls_total", labels) or 0

    before = counted()
    async with serving(do, max_call_s=0.5, max_receive_s=0.3, authenticator=OneKey()) as channel:
        told = "OK", ""
        try:
            await way(channel)
        except grpc.aio.AioRpcError as error:
            told = error.code().name, ""
            # gRPC itself ends these, and gives no details.
            if reason in ("CALLER_DEADLINE", "MESSAGE_TOO_LARGE"):
                told = error.code().name, reason
            elif reason:
                told = error.code().name, details(error, error_details_pb2.ErrorInfo()).reason
        assert told == (code, reason)
        while counted() == before:  # noqa: ASYNC110 - the caller may know before the server
            await asyncio.sleep(0.01)
    [line] = await log_lines(caplog, 1)
    assert (line["code"], line["reason"], line["fault"]) == (code, reason, fault)
    assert about.items() <= line.items()
    assert counted() == before + 1


async def test_a_call_that_the_servers_stop_ends_is_the_servers_doing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "gateway.calls")
    guard = CallInterceptor(CallRules(gate_of(9), Limits(60, 60, 60, MAX_MESSAGE_BYTES, 1 << 20), None))
    handler = grpc.unary_unary_rpc_method_handler(do, StringValue.FromString, StringValue.SerializeToString)
    async with connected(guard, handler) as channel:
        call = asyncio.create_task(named(channel, "wait"))
        await asyncio.sleep(0.1)
        guard.stop(0)
        call.cancel()  # as gRPC's stop does, from the other end
        with pytest.raises(asyncio.CancelledError):
            await call
    [line] = await log_lines(caplog, 1)
    assert (line["reason"], line["fault"]) == ("SERVER_STOPPED", "server")


@asynccontextmanager
async def streaming_large(gate: Gate, max_call_s: float, max_send_s: float) -> AsyncIterator[Any]:
    """A stream of one large answer for each message."""

    async def answer_each(messages: AsyncIterator[StringValue], context: Any) -> AsyncIterator[StringValue]:
        async for message in messages:
            yield await large(message, context)

    handler = grpc.stream_stream_rpc_method_handler(
        answer_each, StringValue.FromString, StringValue.SerializeToString
    )
    limits = Limits(max_call_s, 60, max_send_s, MAX_MESSAGE_BYTES, 1 << 30)
    guard = CallInterceptor(CallRules(gate, limits, None))
    async with connected(guard, handler) as channel:
        yield channel


@pytest.mark.parametrize(("max_call_s", "max_send_s"), [(0.2, 0.6), (60, 0.6)])
async def test_who_does_not_take_an_answer_of_a_stream_loses_its_connection(
    max_call_s: float, max_send_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    gate = gate_of(2)
    async with streaming_large(gate, max_call_s, max_send_s) as channel:
        call = await open_without_reading(channel)
        await asyncio.sleep(0.4)
        assert await held(gate), "gRPC holds an answer that nobody counts"
        assert not call.done()
        assert await asyncio.wait_for(call.code(), 60) is grpc.StatusCode.UNAVAILABLE
        await asyncio.sleep(0.3)
        assert not await held(gate)
        with gate.admit(), gate.admit():  # no place is missing
            pass
    messages = [record.getMessage() for record in caplog.records if record.name != "gateway.calls"]
    assert ["has not taken the answer" in message for message in messages] == [True]


async def test_a_stream_past_its_time_ends_once_its_answer_is_taken(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = gate_of(1)
    async with streaming_large(gate, 0.2, 60) as channel:
        call = await open_without_reading(channel)
        await asyncio.sleep(0.5)
        assert len(await call.read()) > 20_000_000
        assert await asyncio.wait_for(call.code(), 60) is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "0.2 seconds" in await call.details()
    assert {record.name for record in caplog.records} == {"gateway.calls"}


async def test_a_caller_that_leaves_while_a_stream_answers_leaves_nothing_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = gate_of(2)
    async with streaming_large(gate, 60, 60) as channel:
        call = await open_without_reading(channel)
        await asyncio.sleep(0.3)
        assert await held(gate)
        call.cancel()
        await asyncio.sleep(0.3)
        assert not await held(gate)
    assert not caplog.records


async def test_a_call_that_outlives_the_server_is_no_error_of_it(caplog: pytest.LogCaptureFixture) -> None:
    """Once a server has stopped, gRPC lets no call read any more, and cancels the call a moment later."""
    caplog.set_level(logging.INFO)
    is_asked, is_over = asyncio.Event(), asyncio.Event()

    async def answer_each(messages: AsyncIterator[StringValue], context: Any) -> AsyncIterator[StringValue]:
        async for _ in messages:
            is_asked.set()
            # As work does that must not be left half done. gRPC cancels twice.
            for _ in range(3):
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.3)
            is_over.set()
        yield StringValue()

    handler = grpc.stream_stream_rpc_method_handler(
        answer_each, StringValue.FromString, StringValue.SerializeToString
    )
    guard = CallInterceptor(CallRules(gate_of(9), Limits(60, 60, 60, MAX_MESSAGE_BYTES, 1 << 20), None))
    async with connected(guard, handler) as channel:
        call = channel.stream_stream(METHOD)(iter([SMALL]))
        await is_asked.wait()
    await is_over.wait()
    (line,) = await log_lines(caplog, 1)
    assert line["code"] == "CANCELLED"
    assert call.cancelled() or await call.code() != grpc.StatusCode.OK
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_an_error_of_a_call_that_grpc_cannot_end_any_more_is_no_error_of_the_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sending: list[asyncio.Future[None]] = []

    async def answer_each(messages: AsyncIterator[StringValue], context: Any) -> AsyncIterator[StringValue]:
        async for _ in messages:
            # While gRPC sends, it takes no status. A connection that breaks just then does the same.
            sending.append(asyncio.ensure_future(context.write(b"x" * 20_000_000)))
            await asyncio.sleep(0.1)
            raise InvalidArgumentError("value", "is not known")
        yield StringValue()

    handler = grpc.stream_stream_rpc_method_handler(
        answer_each, StringValue.FromString, StringValue.SerializeToString
    )
    guard = CallInterceptor(CallRules(gate_of(9), Limits(60, 60, 60, MAX_MESSAGE_BYTES, 1 << 20), None))
    async with connected(guard, handler) as channel:
        call = await open_without_reading(channel)
        await asyncio.sleep(0.5)
        call.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
    assert len(sending) == 1
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]

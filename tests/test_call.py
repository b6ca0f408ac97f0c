"""What is seen of a call: its id, its log line, its counts; and that none of it goes to another call."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from prometheus_client import REGISTRY

from gateway import call as calls
from gateway.call import Call, current, observe, stage
from gateway.errors import End, InvalidArgumentError, OverloadedError, TritonUnavailableError, end_of

METHOD = "/test.Service/Method"


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0


def fields(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [getattr(record, "fields") for record in caplog.records if record.name == "gateway.calls"]  # noqa: B009


@pytest.fixture(autouse=True)
def _logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gateway")


def test_a_call_is_counted_once(caplog: pytest.LogCaptureFixture) -> None:
    labels = {"method": METHOD, "code": "NOT_FOUND", "reason": "GONE", "fault": "caller"}
    by_app = counted("visiongate_caller_calls_total", caller="app", code="NOT_FOUND")
    before = counted("visiongate_calls_total", **labels)
    read, written = (
        counted(f"visiongate_{way}_bytes_total", method=METHOD) for way in ("request", "response")
    )
    timed = counted("visiongate_call_seconds_count", method=METHOD, code="NOT_FOUND")
    with observe(METHOD, {}, "ipv4:10.0.0.7:52114") as call:
        call.caller = "app"
        call.end = End(grpc.StatusCode.NOT_FOUND, "GONE", "caller", {"field": "image"})
        call.certificate = "CN=app"
        call.tritons = {"b:1", "a:1"}
        call.request_bytes, call.response_bytes = 10, 20
    assert counted("visiongate_calls_total", **labels) == before + 1
    assert counted("visiongate_caller_calls_total", caller="app", code="NOT_FOUND") == by_app + 1
    assert counted("visiongate_call_seconds_count", method=METHOD, code="NOT_FOUND") == timed + 1
    assert counted("visiongate_request_bytes_total", method=METHOD) == read + 10
    assert counted("visiongate_response_bytes_total", method=METHOD) == written + 20
    (line,) = fields(caplog)
    assert line.pop("duration_ms") >= 0
    assert line == {
        "method": METHOD,
        "asked": "",
        "code": "NOT_FOUND",
        "reason": "GONE",
        "fault": "caller",
        "field": "image",
        "caller": "app",
        "certificate": "CN=app",
        "peer": "10.0.0.7",
        "request_bytes": 10,
        "response_bytes": 20,
        "trace_id": "",
        "triton": "a:1,b:1",
        "cause": "",
    }


def test_a_cause_is_logged_on_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with observe(METHOD, {}) as call:
        cause = "Triton says\n2026-01-01 INFO forged: " + "x" * 1000
        call.end = End(grpc.StatusCode.INTERNAL, fault="server", cause=cause)
    (line,) = fields(caplog)
    assert line["cause"].startswith("Triton says 2026-01-01 INFO forged: xxx")
    assert len(line["cause"]) == 500


@pytest.mark.parametrize("given", ["order-17", "!" * 128])
def test_a_callers_request_id_is_kept(given: str) -> None:
    with observe(METHOD, {"x-request-id": given}) as call:
        assert call.request_id == given


@pytest.mark.parametrize("given", ["", "x" * 129, "two words", "a\nb", "\x1b[31m", "ü", "trailing\n"])
def test_what_could_forge_a_log_line_is_no_request_id(given: str) -> None:
    with observe(METHOD, {"x-request-id": given}) as call:
        assert len(call.request_id) == 32
        assert call.request_id.isalnum()


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.7:52114", "10.0.0.7"),
        ("ipv6:%5B::1%5D:52114", "::1"),
        ("ipv6:[fe80::1%25eth0]:1", "fe80::1%eth0"),
        ("unix:", "unix"),
        ("unix:/run/gateway.sock", "unix"),
        ("", ""),
    ],
)
def test_peers_are_named_without_port(peer: str, address: str) -> None:
    with observe(METHOD, {}, peer) as call:
        assert call.peer == address


@pytest.mark.parametrize(
    ("error", "code", "reason", "fault"),
    [
        (asyncio.CancelledError(), "CANCELLED", "CALLER_LEFT", "caller"),
        (GeneratorExit(), "CANCELLED", "CALLER_LEFT", "caller"),
        (ValueError(), "INTERNAL", "UNEXPECTED", "server"),
    ],
)
def test_an_error_that_nobody_named_is_not_counted_as_success(
    error: BaseException, code: str, reason: str, fault: str
) -> None:
    labels = {"method": METHOD, "code": code, "reason": reason, "fault": fault}
    before = counted("visiongate_calls_total", **labels)
    with pytest.raises(type(error)), observe(METHOD, {}):
        raise error
    assert counted("visiongate_calls_total", **labels) == before + 1


def test_a_named_end_stays() -> None:
    def fail(call: Call) -> None:
        call.end = End(grpc.StatusCode.DEADLINE_EXCEEDED, fault="caller")
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError), observe(METHOD, {}) as call:
        fail(call)
    assert call.end.code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_the_servers_faults_are_warnings(caplog: pytest.LogCaptureFixture) -> None:
    for error in (TritonUnavailableError("gone"), InvalidArgumentError("image", "is empty")):
        with observe(METHOD, {}) as call:
            call.end = end_of(error)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_one_callers_failures_have_a_few_lines_and_a_number(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "_limiters", {})
    full = end_of(OverloadedError("full", "calls", 1))
    for caller in ("greedy", "other"):
        for _ in range(calls.MAX_LINES + 30 if caller == "greedy" else 1):
            with observe(METHOD, {}) as call:
                call.caller, call.end = caller, full
    for _ in range(calls.MAX_LINES + 5):  # what ends well, and the server's faults, have a line each
        with observe(METHOD, {}):
            pass
    for limiter in calls._limiters.values():
        limiter.flush()
    lines = [(record.message, record.fields) for record in caplog.records]  # type: ignore[attr-defined]
    of_greedy = [message for message, line in lines if line["caller"] == "greedy"]
    assert of_greedy == ["call ended"] * calls.MAX_LINES + ["30 more calls ended"]
    assert lines[-1][1] == {"code": "RESOURCE_EXHAUSTED", "reason": "OVERLOADED", "caller": "greedy"}
    assert [message for message, line in lines if line["caller"] == "other"] == ["call ended"]
    assert len([line for _, line in lines if line["code"] == "OK"]) == calls.MAX_LINES + 5


async def test_calls_at_once_know_their_own() -> None:
    both = asyncio.Barrier(2)

    async def call(request_id: str) -> Call | None:
        with observe(METHOD, {"x-request-id": request_id}):
            await both.wait()
            return current()

    first, second = await asyncio.gather(call("first"), call("second"))
    assert first is not None
    assert second is not None
    assert (first.request_id, second.request_id) == ("first", "second")
    assert current() is None


def test_stages_add_up_and_reach_the_line(caplog: pytest.LogCaptureFixture) -> None:
    before = counted("visiongate_stage_seconds_count", stage="decode")
    with observe(METHOD, {}) as call:
        for _ in range(2):
            with stage("decode"):
                pass
        with pytest.raises(ValueError, match="no"), stage("inference"):
            raise ValueError("no")
    assert counted("visiongate_stage_seconds_count", stage="decode") == before + 2
    assert set(call.stage_seconds) == {"decode", "inference"}
    (line,) = fields(caplog)
    assert {"decode_ms", "inference_ms"} <= set(line)


def test_stages_outside_calls_are_measured_too() -> None:
    before = counted("visiongate_stage_seconds_count", stage="decode")
    with stage("decode"):
        assert current() is None
    assert counted("visiongate_stage_seconds_count", stage="decode") == before + 1


async def test_a_stream_given_up_ends_in_another_context(caplog: pytest.LogCaptureFixture) -> None:
    async def stream() -> AsyncIterator[int]:
        with observe(METHOD, {}):
            yield 1

    given_up = stream()
    assert await anext(given_up) == 1
    # As the event loop does with generators that nobody reads to their end.
    await asyncio.create_task(given_up.aclose())  # type: ignore[attr-defined]
    (line,) = fields(caplog)
    assert line["code"] == "CANCELLED"
    assert not [record for record in caplog.records if record.levelname == "ERROR"]

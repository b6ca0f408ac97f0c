"""What is seen of a call: its id, its log line, its counts; and that none of it goes to another call."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from prometheus_client import REGISTRY

from gateway.call import Call, current, observe, stage

METHOD = "/test.Service/Method"


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0


def fields(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [getattr(record, "fields") for record in caplog.records if record.name == "gateway.calls"]  # noqa: B009


@pytest.fixture(autouse=True)
def _logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gateway")


def test_a_call_is_counted_once(caplog: pytest.LogCaptureFixture) -> None:
    labels = {"method": METHOD, "code": "NOT_FOUND", "caller": "app"}
    before = counted("visiongate_calls_total", **labels)
    read, written = (
        counted(f"visiongate_{way}_bytes_total", method=METHOD) for way in ("request", "response")
    )
    timed = counted("visiongate_call_seconds_count", method=METHOD)
    with observe(METHOD, {}, "ipv4:10.0.0.7:52114") as call:
        call.caller = "app"
        call.code = grpc.StatusCode.NOT_FOUND
        call.request_bytes, call.response_bytes = 10, 20
    assert counted("visiongate_calls_total", **labels) == before + 1
    assert counted("visiongate_call_seconds_count", method=METHOD) == timed + 1
    assert counted("visiongate_request_bytes_total", method=METHOD) == read + 10
    assert counted("visiongate_response_bytes_total", method=METHOD) == written + 20
    (line,) = fields(caplog)
    assert line.pop("duration_ms") >= 0
    assert line == {
        "method": METHOD,
        "code": "NOT_FOUND",
        "caller": "app",
        "peer": "10.0.0.7",
        "request_bytes": 10,
        "response_bytes": 20,
        "trace_id": "",
    }


def test_a_cause_is_logged_on_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with observe(METHOD, {}) as call:
        call.cause = "Triton says\n2026-01-01 INFO forged: " + "x" * 1000
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
    ("error", "code"),
    [
        (asyncio.CancelledError(), grpc.StatusCode.CANCELLED),
        (GeneratorExit(), grpc.StatusCode.CANCELLED),
        (ValueError(), grpc.StatusCode.UNKNOWN),
    ],
)
def test_an_error_that_nobody_named_is_not_counted_as_success(
    error: BaseException, code: grpc.StatusCode
) -> None:
    labels = {"method": METHOD, "code": code.name, "caller": ""}
    before = counted("visiongate_calls_total", **labels)
    with pytest.raises(type(error)), observe(METHOD, {}):
        raise error
    assert counted("visiongate_calls_total", **labels) == before + 1


def test_a_named_error_keeps_its_code() -> None:
    def fail(call: Call) -> None:
        call.code = grpc.StatusCode.DEADLINE_EXCEEDED
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError), observe(METHOD, {}) as call:
        fail(call)
    assert call.code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_the_servers_faults_are_warnings(caplog: pytest.LogCaptureFixture) -> None:
    for code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INVALID_ARGUMENT):
        with observe(METHOD, {}) as call:
            call.code = code
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


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

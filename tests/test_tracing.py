"""Spans: whose children they are, what they say, and the caller's trace where none are made."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import grpc
import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from fake_triton import FakeTriton, reached
from gateway import tracing
from gateway.cache import ComputingCache
from gateway.call import observe, stage
from gateway.errors import (
    DeadlineExceededError,
    End,
    InvalidArgumentError,
    TritonUnavailableError,
    end_of,
)
from gateway.settings import Settings

METHOD = "/visiongate.v1.DetectionService/DetectObjects"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLER = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}
UNSAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-00"}


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Tracing that is switched on; keeps the spans that have ended."""
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    monkeypatch.setattr(tracing, "_tracer", provider.get_tracer("test"))
    yield memory
    provider.shutdown()


def infer(code: str = "OK") -> dict[str, str]:
    """The headers that a request to Triton takes along."""
    span = tracing.start_inference("sam", "triton:8001")
    headers = tracing.headers(span)
    tracing.end_inference(span, code)
    return headers


def parents(spans: Mapping[str, ReadableSpan]) -> dict[str, str]:
    """Each span's parent by name; nothing for one that is not of this server."""
    names = {span.context.span_id: name for name, span in spans.items() if span.context}
    return {name: names.get(span.parent.span_id, "") if span.parent else "" for name, span in spans.items()}


def ended(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def test_a_call_continues_the_callers_trace(exporter: InMemorySpanExporter) -> None:
    with observe(METHOD, {**CALLER, "x-request-id": "abc"}, "ipv4:10.0.0.7:1") as call:
        call.caller = "app"
        with stage("inference"):
            headers = infer()
    spans = ended(exporter)
    name, triton = METHOD[1:], "inference.GRPCInferenceService/ModelInfer"
    assert parents(spans) == {name: "", "inference": name, triton: "inference"}
    span_of_call, request = spans[name], spans[triton]
    assert span_of_call.parent is not None
    assert f"{span_of_call.parent.span_id:016x}" == PARENT
    assert all(
        span.context is not None and f"{span.context.trace_id:032x}" == TRACE for span in spans.values()
    )
    assert span_of_call.kind is SpanKind.SERVER
    assert span_of_call.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": name,
        "client.address": "10.0.0.7",
        "rpc.response.status_code": "OK",
        "visiongate.request_id": "abc",
        "visiongate.caller": "app",
    }
    assert request.kind is SpanKind.CLIENT
    assert request.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": triton,
        "server.address": "triton:8001",
        "visiongate.triton_model": "sam",
        "rpc.response.status_code": "OK",
    }
    assert request.context is not None
    assert headers == {
        "traceparent": f"00-{TRACE}-{request.context.span_id:016x}-01",
        "tracestate": "vendor=1",
    }


def test_a_call_outside_a_trace_begins_one(exporter: InMemorySpanExporter) -> None:
    for metadata in ({}, {"traceparent": "garbage"}):
        with observe(METHOD, metadata):
            pass
    first, second = exporter.get_finished_spans()
    assert first.parent is None
    assert second.parent is None
    assert first.context is not None
    assert second.context is not None
    assert first.context.trace_id != second.context.trace_id


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (end_of(TritonUnavailableError("gone", "gaze")), StatusCode.ERROR),
        (end_of(DeadlineExceededError("late", "MAX_CALL_TIME", "server")), StatusCode.ERROR),
        (end_of(asyncio.CancelledError(), is_late=True), StatusCode.UNSET),
        (end_of(InvalidArgumentError("image", "is empty")), StatusCode.UNSET),
        (End(), StatusCode.UNSET),
    ],
)
def test_only_the_servers_faults_are_errors(
    exporter: InMemorySpanExporter, end: End, status: StatusCode
) -> None:
    with observe(METHOD, {}) as call:
        call.end = end
    (span,) = exporter.get_finished_spans()
    assert span.status.status_code is status
    assert span.attributes is not None
    assert span.attributes["rpc.response.status_code"] == end.code.name
    assert span.attributes.get("visiongate.reason", "") == end.reason
    for name, value in end.about.items():
        assert span.attributes[f"visiongate.{name}"] == value
    assert ("error.type" in span.attributes) == (status is StatusCode.ERROR)


def test_every_failed_request_to_triton_is_an_error(exporter: InMemorySpanExporter) -> None:
    with observe(METHOD, {}):
        infer("RESOURCE_EXHAUSTED")
    request, _ = exporter.get_finished_spans()
    assert request.status.status_code is StatusCode.ERROR


def test_texts_of_errors_stay_out(exporter: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="secret"), observe(METHOD, {}), stage("decode"):
        raise ValueError("secret")
    assert len(exporter.get_finished_spans()) == 2
    assert all("secret" not in span.to_json() for span in exporter.get_finished_spans())


def test_the_callers_choice_not_to_sample_is_kept(exporter: InMemorySpanExporter) -> None:
    with observe(METHOD, UNSAMPLED), stage("inference"):
        headers = infer()
    assert exporter.get_finished_spans() == ()
    assert headers["traceparent"].startswith(f"00-{TRACE}-")
    assert headers["traceparent"].endswith("-00")


def test_without_an_exporter_the_callers_trace_is_passed_on() -> None:
    with tracing.exporting(Settings()), observe(METHOD, CALLER), stage("inference"):
        assert infer() == CALLER


def test_without_a_trace_nothing_is_passed_on() -> None:
    with observe(METHOD, {}), stage("inference"):
        assert infer() == {}
    assert infer() == {}


class UnavailableAtFirst(FakeTriton):
    """Keeps the `traceparent` of each request."""

    def __init__(self) -> None:
        self.received: list[str | None] = []

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.received.append(dict(context.invocation_metadata()).get("traceparent"))
        if len(self.received) == 1:
            await context.abort(grpc.StatusCode.UNAVAILABLE)
        return await super().ModelInfer(request, context)


async def test_every_attempt_takes_its_own_span_to_triton(exporter: InMemorySpanExporter) -> None:
    fake = UnavailableAtFirst()
    async with reached(fake) as triton:
        with observe(METHOD, CALLER):
            await triton.infer("sam", {"in": np.zeros((1, 1), np.float32)}, ("out",))
        # Outside calls, as at start, there is none.
        await triton.infer("sam", {"in": np.zeros((1, 1), np.float32)}, ("out",))
    failed, succeeded, _ = exporter.get_finished_spans()
    assert failed.status.status_code is StatusCode.ERROR
    assert succeeded.status.status_code is StatusCode.UNSET
    assert fake.received == [f"00-{TRACE}-{span.context.span_id:016x}-01" for span in (failed, succeeded)] + [
        None
    ]


async def test_shared_work_belongs_to_the_trace_of_the_first(exporter: InMemorySpanExporter) -> None:
    cache = ComputingCache[bytes]("test", 100, len)
    release = asyncio.Event()
    headers: list[dict[str, str]] = []

    async def compute() -> bytes:
        await release.wait()
        with stage("preprocess"):
            pass
        headers.append(infer())
        return b"x"

    async def call(method: str) -> bytes:
        with observe(method, {}), stage("inference"):
            return await cache.get_or_compute("key", compute)

    first, second = (asyncio.create_task(call(method)) for method in ("/a.A/First", "/a.A/Second"))
    for _ in range(3):
        await asyncio.sleep(0)
    release.set()
    await asyncio.gather(first, second)
    spans = ended(exporter)
    first_call, preprocess = spans["a.A/First"].context, spans["preprocess"].context
    assert first_call is not None
    assert preprocess is not None
    assert preprocess.trace_id == first_call.trace_id
    assert len(headers) == 1


async def test_shared_work_outlives_the_call_that_began_it(
    exporter: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    cache = ComputingCache[bytes]("test", 100, len)
    release = asyncio.Event()
    headers: list[dict[str, str]] = []

    async def compute() -> bytes:
        await release.wait()
        with stage("preprocess"):
            headers.append(infer())
        return b"x"

    async def call(method: str) -> bytes:
        with observe(method, CALLER):
            return await cache.get_or_compute("key", compute)

    first, second = (asyncio.create_task(call(method)) for method in ("/a.A/First", "/a.A/Second"))
    for _ in range(3):
        await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    release.set()
    assert await second == b"x"
    assert set(ended(exporter)) == {"a.A/First", "a.A/Second"}
    assert headers[0]["traceparent"].startswith(f"00-{TRACE}-")
    # OpenTelemetry warns of spans that are changed after their end.
    assert not caplog.records


async def test_calls_leave_no_trace_to_what_comes_after(exporter: InMemorySpanExporter) -> None:
    with observe(METHOD, CALLER):
        pass
    assert not trace.get_current_span().get_span_context().is_valid


@pytest.mark.parametrize(
    ("endpoint", "is_direct"),
    [
        ("http://localhost:4317", True),
        ("http://[::1]:4317", True),
        ("https://collector.example.com:4317", False),
    ],
)
def test_a_collector_on_this_machine_is_reached_without_a_proxy(
    endpoint: str, is_direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_INSECURE", "false")  # the setting's scheme says it
    exporter: Any = tracing._exporter(endpoint)
    assert (("grpc.enable_http_proxy", 0) in exporter._channel_options) == is_direct
    assert exporter._insecure == endpoint.startswith("http:")
    exporter.shutdown()

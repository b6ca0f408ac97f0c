"""Spans of calls, their stages and Triton requests, by OpenTelemetry; and the caller's trace, passed on.

Without an exporter no span is made, but a caller's `traceparent` still reaches Triton.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from urllib.parse import urlsplit

import grpc
from opentelemetry import trace
from opentelemetry.context import Context, attach, get_current
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import NonRecordingSpan, Span, SpanKind, Status, StatusCode, format_trace_id
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway.errors import End
from gateway.settings import Settings
from visiongate.address import is_local
from visiongate.connection import NO_PROXY

_INFERENCE = "inference.GRPCInferenceService/ModelInfer"
_FLUSH_S = 3.0
_TRACEPARENT = "traceparent"
_PROPAGATOR = TraceContextTextMapPropagator()
# Until a provider is set, its spans only carry the caller's context.
_tracer = trace.get_tracer("visiongate")


@contextmanager
def exporting(settings: Settings) -> Iterator[None]:
    """Send spans to the settings' collector, if there is one. OTEL_TRACES_SAMPLER says which spans.

    At most once a process: OpenTelemetry's provider can be set only once.
    """
    if settings.otlp_endpoint is None:
        yield
        return
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: "visiongate"}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_exporter(settings.otlp_endpoint)))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        # A collector that does not answer would delay the end of the process by half a minute.
        flush = threading.Thread(target=provider.shutdown, daemon=True)
        flush.start()
        flush.join(_FLUSH_S)


def _exporter(endpoint: str) -> SpanExporter:
    # Its import takes a second, and most servers have no collector.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    url = urlsplit(endpoint)
    return OTLPSpanExporter(
        endpoint=endpoint,
        # Otherwise OTEL_EXPORTER_OTLP_INSECURE could contradict the setting.
        insecure=url.scheme == "http",
        channel_options=NO_PROXY if is_local(url.hostname or "") else (),  # type: ignore[arg-type]
    )


class call_span(AbstractContextManager[Span]):  # noqa: N801 - it reads as the function that it could be
    """Open the span of a call, `/package.Service/Method`, which continues the caller's trace."""

    __slots__ = ("_metadata", "_method", "_outer", "_peer", "span")
    _outer: Context | None
    span: Span

    def __init__(self, method: str, metadata: Mapping[str, str], peer: str) -> None:
        self._method = method
        self._metadata = metadata
        self._peer = peer

    def __enter__(self) -> Span:
        if _TRACEPARENT not in self._metadata and not _has_provider():
            # No caller's trace to pass on, and nobody to send spans to.
            self._outer, self.span = None, trace.INVALID_SPAN
            return self.span
        caller = _PROPAGATOR.extract(self._metadata, Context())
        name = self._method.removeprefix("/")
        attributes = {"rpc.system.name": "grpc", "rpc.method": name, "client.address": self._peer}
        self.span = _tracer.start_span(name, caller, SpanKind.SERVER, attributes)
        self._outer = get_current()
        attach(trace.set_span_in_context(self.span, caller))
        return self.span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._outer is not None:
            # Not `detach`: a stream that is given up ends in another context, where its token is an error.
            attach(self._outer)
            self.span.end()


def _has_provider() -> bool:
    """Return whether spans go anywhere."""
    is_given = not isinstance(_tracer, trace.ProxyTracer)
    return is_given or not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def is_recording() -> bool:
    """Return whether the current call has a span that goes anywhere."""
    return trace.get_current_span().is_recording()


@contextmanager
def stage_span(stage: str) -> Iterator[None]:
    """Open the span of a stage, inside that of its call."""
    # Exceptions belong in the log alone: their text may hold what a caller sent.
    with _tracer.start_as_current_span(stage, record_exception=False, set_status_on_exception=False):
        yield


def note_stage(stage: str, end_ns: int, seconds: float) -> None:
    """Add the span of a stage that was measured elsewhere, and ended at `end_ns`, inside that of its call."""
    if is_recording():
        start_ns = end_ns - int(seconds * 1e9)
        _tracer.start_span(stage, start_time=start_ns).end(end_ns)


def start_inference(model: str, server: str) -> Span:
    """Start the span of a request to Triton, which `end_inference` ends."""
    current = trace.get_current_span()
    if not current.is_recording():
        # Not the current span itself: its call may have ended, and have left its work to other calls.
        return NonRecordingSpan(current.get_span_context())
    attributes = {
        "rpc.system.name": "grpc",
        "rpc.method": _INFERENCE,
        "server.address": server,
        "visiongate.triton_model": model,
    }
    return _tracer.start_span(_INFERENCE, kind=SpanKind.CLIENT, attributes=attributes)


def headers(span: Span) -> dict[str, str]:
    """Return the headers that tell the next server of the span: `traceparent`, or nothing outside a trace."""
    if not span.get_span_context().is_valid:
        return {}
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, trace.set_span_in_context(span, Context()))
    return carrier


def end_inference(span: Span, code: str) -> None:
    """Record how a request to Triton ended, and end its span."""
    _set_code(span, code, is_error=code != grpc.StatusCode.OK.name)
    span.end()


def set_call_end(span: Span, end: End) -> None:
    """Record how the call of a span ended."""
    _set_code(span, end.code.name, is_error=end.fault == "server")
    if end.reason:
        span.set_attribute("visiongate.reason", end.reason)
    for name, value in end.about.items():
        span.set_attribute(f"visiongate.{name}", value)


def trace_id(span: Span) -> str:
    """Return the id of a span's trace as hexadecimal digits; empty outside a trace."""
    if span is trace.INVALID_SPAN:
        return ""
    context = span.get_span_context()
    return format_trace_id(context.trace_id) if context.is_valid else ""


def _set_code(span: Span, code: str, *, is_error: bool) -> None:
    span.set_attribute("rpc.response.status_code", code)
    if is_error:
        span.set_attribute("error.type", code)
        span.set_status(Status(StatusCode.ERROR))

"""One call to the gateway: its id, its caller, its outcome and its times.

The log, the metrics and the traces read what is measured here, once. Each call is one line of the log.
"""

import logging
import os
import re
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from functools import lru_cache
from types import TracebackType
from typing import Literal
from urllib.parse import unquote

from prometheus_client import Counter

from gateway import metrics, tracing
from gateway.errors import End, end_of
from gateway.line_limiter import LineLimiter
from gateway.trusted_proxies import NO_PROXIES, TrustedProxies

logger = logging.getLogger("gateway.calls")

REQUEST_ID = "x-request-id"
# The ids of callers that are kept. Any other text could forge log lines.
_VALID_ID = re.compile(r"[!-~]{1,128}")
_MAX_CAUSE_LENGTH = 500
# Of calls that ended by one caller's doing for one reason, in so many seconds.
MAX_LINES, LINES_PERIOD_S = 20, 10.0
_limiters: dict[tuple[str, str, str], LineLimiter] = {}

Stage = Literal["decode", "preprocess", "inference", "postprocess"]
STAGES: tuple[Stage, ...] = ("decode", "preprocess", "inference", "postprocess")
_STAGE_FIELDS = {name: f"{name}_ms" for name in STAGES}
_STAGE_SECONDS = {name: metrics.STAGE_SECONDS.labels(name) for name in STAGES}


_UNDER_WAY = End()


@dataclass(slots=True)
class Call:
    """A call under way. Whoever answers it fills in what becomes known.

    connection: gRPC's name for its other end. peer: the caller's address. certificate: the subject of
    the caller's certificate, if it showed one. asked: the name of a method that does not
    exist. is_stream: it lasts as long as its caller likes. is_item: it is one of many on a stream. tritons:
    the servers that were asked. stage_seconds: only of stages that began. Work that calls share counts for
    the first of them.
    """

    method: str
    request_id: str
    connection: str = ""
    peer: str = ""
    caller: str = ""
    certificate: str = ""
    asked: str = ""
    is_stream: bool = False
    is_item: bool = False
    end: End = _UNDER_WAY
    request_bytes: int = 0
    response_bytes: int = 0
    stage_seconds: dict[Stage, float] = field(default_factory=dict)
    tritons: set[str] = field(default_factory=set)
    counts: dict[str, int] = field(default_factory=dict)
    """What the log line says of a stream: its items, and how many of them failed."""


_current_call: ContextVar[Call | None] = ContextVar("call", default=None)
_current_stage: ContextVar[Stage | None] = ContextVar("stage", default=None)


def note_triton(server: str) -> None:
    """Note that the current call's work is sent to a Triton server."""
    call = _current_call.get()
    if call is not None:
        call.tritons.add(server)


def valid_id(sent: str) -> str:
    """Return a caller's request id, or a new one if it sent none that a log can have."""
    return sent if _VALID_ID.fullmatch(sent) else os.urandom(16).hex()


def current() -> Call | None:
    """Return the call that this code works for. Work that calls share is done for the first of them."""
    return _current_call.get()


class observe(AbstractContextManager[Call]):  # noqa: N801 - it reads as the function that it could be
    """Measure a call, log it in one line and end its span, however it ends.

    `connection` is gRPC's name for the other end of it: the caller's, or that of one of `proxies`.

    A class and no generator, as all that every call passes: that costs a third.
    """

    __slots__ = ("_call", "_outer", "_span", "_start")

    def __init__(
        self,
        method: str,
        metadata: Mapping[str, str],
        connection: str = "",
        proxies: TrustedProxies = NO_PROXIES,
    ) -> None:
        request_id = valid_id(metadata.get(REQUEST_ID, ""))
        peer = proxies.caller(_address(connection), metadata)
        self._call = Call(method, request_id, connection, peer)
        self._span = tracing.call_span(method, metadata, peer)

    def __enter__(self) -> Call:
        self._outer = _current_call.get()
        _current_call.set(self._call)
        self._start = time.perf_counter()
        self._span.__enter__()
        return self._call

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        call, span = self._call, self._span.span
        if error is not None and call.end.fault == "none":
            call.end = end_of(error)
        seconds = time.perf_counter() - self._start
        try:
            _count(call, seconds)
            _log(call, seconds, tracing.trace_id(span))
            if span.is_recording():
                span.set_attribute("visiongate.request_id", call.request_id)
                span.set_attribute("visiongate.caller", call.caller)
                tracing.set_call_end(span, call.end)
        finally:
            # Not by a token: a stream that is given up ends in another context, where a token is an error.
            _current_call.set(self._outer)
            self._span.__exit__(kind, error, trace)


class stage(AbstractContextManager[None]):  # noqa: N801
    """Measure a stage of the current call. A stage inside the same stage is a part of it."""

    __slots__ = ("_name", "_span", "_start", "_token")
    _token: Token[Stage | None] | None

    def __init__(self, name: Stage) -> None:
        self._name = name

    def __enter__(self) -> None:
        if _current_stage.get() == self._name:
            self._token = None
            return
        self._token = _current_stage.set(self._name)
        self._start = time.perf_counter()
        self._span = tracing.stage_span(self._name) if tracing.is_recording() else None
        if self._span is not None:
            self._span.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is None:
            return
        try:
            if self._span is not None:
                self._span.__exit__(kind, error, trace)
        finally:
            _current_stage.reset(self._token)
            note_stage(self._name, time.perf_counter() - self._start)


def note_stage(name: Stage, seconds: float) -> None:
    """Count the seconds of a stage of the current call."""
    _STAGE_SECONDS[name].observe(seconds)
    call = _current_call.get()
    if call is not None:
        call.stage_seconds[name] = call.stage_seconds.get(name, 0.0) + seconds


def _count(call: Call, seconds: float) -> None:
    end = call.end
    code = end.code.name
    _calls_metric(call.method, code, end.reason, end.fault).inc()
    _caller_calls_metric(call.caller, code).inc()
    if not call.is_stream:
        _call_seconds_metric(call.method, code).observe(seconds)
    received, answered = _bytes_metrics(call.method)
    received.inc(call.request_bytes)
    answered.inc(call.response_bytes)


# prometheus_client takes a lock and checks its labels at each look. No series of these is ever removed.
_calls_metric = lru_cache(1024)(metrics.CALLS.labels)
_caller_calls_metric = lru_cache(1024)(metrics.CALLER_CALLS.labels)
_call_seconds_metric = lru_cache(1024)(metrics.CALL_SECONDS.labels)


@lru_cache(1024)
def _bytes_metrics(method: str) -> tuple[Counter, Counter]:
    return metrics.REQUEST_BYTES.labels(method), metrics.RESPONSE_BYTES.labels(method)


def _log(call: Call, seconds: float, trace_id: str) -> None:
    """Log names, sizes and times. Of what the caller sent, only the request id is logged.

    An item of a stream that was answered has no line: its stream has one, with their number.
    """
    end = call.end
    if call.is_item and end.fault == "none" and not logger.isEnabledFor(logging.DEBUG):
        return
    level = logging.WARNING if end.fault == "server" else logging.INFO
    has_line = end.fault in ("none", "server") or logger.isEnabledFor(logging.DEBUG) or _has_line(call)
    if not (has_line and logger.isEnabledFor(level)):
        return
    fields = {
        "method": call.method,
        "asked": call.asked,
        "code": end.code.name,
        "reason": end.reason,
        "fault": "" if end.fault == "none" else end.fault,
        **end.about,
        "caller": call.caller,
        "certificate": call.certificate,
        "peer": call.peer,
        "duration_ms": round(seconds * 1e3, 3),
        "request_bytes": call.request_bytes,
        "response_bytes": call.response_bytes,
        **call.counts,
        "trace_id": trace_id,
        "triton": ",".join(sorted(call.tritons)),
        # On one line, whatever is in it.
        "cause": " ".join(end.cause.split())[:_MAX_CAUSE_LENGTH] if end.cause else "",
    }
    for name, stage_seconds in call.stage_seconds.items():
        fields[_STAGE_FIELDS[name]] = round(stage_seconds * 1e3, 3)
    # As `logger.log` does, which looks through the stack for a line of code that nobody asks for.
    logger.handle(
        logger.makeRecord(
            *(logger.name, level, "", 0, "call ended", (), None),
            func="",
            extra={"fields": fields},
        )
    )


def _has_line(call: Call) -> bool:
    """Return whether a call that ended by its caller's doing, or for lack of room, has a line of its own.

    However many come, the log has a few lines a while for each caller and reason, and then the number of
    others.
    """
    key = call.end.code.name, call.end.reason, call.caller
    limiter = _limiters.setdefault(
        key, LineLimiter(MAX_LINES, LINES_PERIOD_S, lambda count: _log_omitted(key, count))
    )
    return limiter.admit()


def _log_omitted(key: tuple[str, str, str], count: int) -> None:
    fields = dict(zip(("code", "reason", "caller"), key, strict=True))
    logger.info("%d more calls ended", count, extra={"fields": fields})


@lru_cache(1024)
def _address(peer: str) -> str:
    """Return `ipv4:10.0.0.7:52114` and `ipv6:%5B::1%5D:52114` without scheme and port."""
    scheme, _, rest = unquote(peer).partition(":")
    return rest.rpartition(":")[0].strip("[]") if scheme in ("ipv4", "ipv6") else scheme

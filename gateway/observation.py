"""What is seen of a call from outside: its id, who called, what came of it. One log line a call."""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from urllib.parse import unquote

import grpc

from gateway import metrics, tracing

logger = logging.getLogger("gateway.calls")

REQUEST_ID = "x-request-id"
# What a caller's id may be to be kept: anything else could forge log lines.
_GIVEN_ID = re.compile(r"[!-~]{1,128}")
_LONGEST_CAUSE = 500


@dataclass(slots=True)
class Observation:
    """A call under way; whoever answers it fills in what becomes known."""

    method: str
    request_id: str
    peer: str = ""
    caller: str = ""
    code: grpc.StatusCode = grpc.StatusCode.OK
    request_bytes: int = 0
    response_bytes: int = 0
    # What is not for the caller: Triton's own words.
    cause: str = ""
    stage_seconds: dict[str, float] = field(default_factory=dict)


_current: ContextVar[Observation | None] = ContextVar("observation", default=None)


def current() -> Observation | None:
    """The call that this code works for; work that calls share is done for the first of them."""
    return _current.get()


@contextmanager
def observe(method: str, metadata: Mapping[str, str], peer: str = "") -> Iterator[Observation]:
    """Around a call: measures it, logs it in one line and ends its span, whatever comes of it.

    `peer` is gRPC's name for the caller's end of the connection.
    """
    given = metadata.get(REQUEST_ID, "")
    request_id = given if _GIVEN_ID.fullmatch(given) else uuid.uuid4().hex
    observation = Observation(method, request_id, _address(peer))
    outer = _current.get()
    _current.set(observation)
    start = time.perf_counter()
    with tracing.call_span(method, metadata, observation.peer) as span:
        try:
            yield observation
        except BaseException as error:
            if observation.code is grpc.StatusCode.OK:
                is_cancelled = isinstance(error, asyncio.CancelledError | GeneratorExit)
                observation.code = grpc.StatusCode.CANCELLED if is_cancelled else grpc.StatusCode.UNKNOWN
            raise
        finally:
            seconds = time.perf_counter() - start
            _count(observation, seconds)
            _log(observation, seconds, tracing.trace_id(span))
            span.set_attribute("visiongate.request_id", request_id)
            span.set_attribute("visiongate.caller", observation.caller)
            tracing.set_call_code(span, observation.code)
            # Not by a token: a stream that is given up ends in another context, where that is an error.
            _current.set(outer)


@contextmanager
def observe_stage(stage: str) -> Iterator[None]:
    """Around a stage of a call: decode, preprocess, inference or postprocess."""
    start = time.perf_counter()
    try:
        with tracing.stage_span(stage):
            yield
    finally:
        seconds = time.perf_counter() - start
        metrics.STAGE_SECONDS.labels(stage).observe(seconds)
        observation = _current.get()
        if observation is not None:
            before = observation.stage_seconds.get(stage, 0.0)
            observation.stage_seconds[stage] = before + seconds


def _count(observation: Observation, seconds: float) -> None:
    method = observation.method
    metrics.CALLS.labels(method, observation.code.name, observation.caller).inc()
    metrics.CALL_SECONDS.labels(method).observe(seconds)
    metrics.REQUEST_BYTES.labels(method).inc(observation.request_bytes)
    metrics.RESPONSE_BYTES.labels(method).inc(observation.response_bytes)


def _log(observation: Observation, seconds: float, trace_id: str) -> None:
    """Names, sizes and times: nothing of what the caller sent but its request id."""
    fields = {
        "method": observation.method,
        "code": observation.code.name,
        "caller": observation.caller,
        "peer": observation.peer,
        "duration_ms": round(seconds * 1e3, 3),
        "request_bytes": observation.request_bytes,
        "response_bytes": observation.response_bytes,
        "trace_id": trace_id,
    }
    for stage, stage_seconds in observation.stage_seconds.items():
        fields[f"{stage}_ms"] = round(stage_seconds * 1e3, 3)
    if observation.cause:
        # On one line, whatever is in it.
        fields["cause"] = " ".join(observation.cause.split())[:_LONGEST_CAUSE]
    level = logging.WARNING if observation.code in tracing.SERVER_FAULTS else logging.INFO
    logger.log(level, "call ended", extra={"fields": fields})


def _address(peer: str) -> str:
    """`ipv4:10.0.0.7:52114` and `ipv6:%5B::1%5D:52114` without scheme and port."""
    scheme, _, rest = unquote(peer).partition(":")
    return rest.rpartition(":")[0].strip("[]") if scheme in ("ipv4", "ipv6") else scheme

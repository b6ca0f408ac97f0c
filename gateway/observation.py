"""What is seen of a call from outside: its id, who called, what came of it. One log line a call."""

import logging
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import grpc

from gateway import metrics

logger = logging.getLogger(__name__)

REQUEST_ID = "x-request-id"
LONGEST_REQUEST_ID = 128


@dataclass(slots=True)
class Observation:
    """A call under way; whoever answers it fills in what becomes known."""

    method: str
    request_id: str
    caller: str = ""
    code: grpc.StatusCode = grpc.StatusCode.OK
    request_bytes: int = 0
    response_bytes: int = 0


@contextmanager
def observe(method: str, metadata: Mapping[str, str]) -> Iterator[Observation]:
    """Around a call: measures it, logs it in one line and ends its span, whatever comes of it."""
    given = metadata.get(REQUEST_ID, "")
    observation = Observation(method, given if 0 < len(given) <= LONGEST_REQUEST_ID else uuid.uuid4().hex)
    start = time.perf_counter()
    try:
        yield observation
    finally:
        seconds = time.perf_counter() - start
        metrics.CALLS.labels(method, observation.code.name, observation.caller).inc()
        metrics.CALL_SECONDS.labels(method).observe(seconds)
        metrics.REQUEST_BYTES.labels(method).inc(observation.request_bytes)
        metrics.RESPONSE_BYTES.labels(method).inc(observation.response_bytes)
        logger.info("%s %s in %.1f ms", method, observation.code.name, seconds * 1e3)

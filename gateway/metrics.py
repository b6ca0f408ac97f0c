"""Prometheus metrics. Other modules count with these; nothing here knows those modules."""

import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from itertools import product
from typing import TypeVar

import grpc
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder

from gateway import metric_values

# The name of the whole server in gRPC's health protocol.
WHOLE_SERVER = ""

# Seconds: from a cached embedding to a page of text on a CPU. No edge is the default of a limit: the times of
# calls that end there lie on both sides of it.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 12, 24, 45, 90, 240, 400)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
# Not the codes of callers' faults: no alert is about these.
_CODES = ("OK", "UNKNOWN", "DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE")
_ENDS = [
    {"code": code, "reason": reason, "fault": fault}
    for code, reason, fault in (
        ("OK", "", "none"),
        ("UNAVAILABLE", "TRITON_UNAVAILABLE", "server"),
        ("DEADLINE_EXCEEDED", "MAX_CALL_TIME", "server"),
        ("DEADLINE_EXCEEDED", "TRITON_DEADLINE", "server"),
        ("INTERNAL", "REQUEST_KILLED_SERVER", "server"),
        ("INTERNAL", "TRITON_FAILED", "server"),
        ("INTERNAL", "NOT_FINITE", "server"),
        ("INTERNAL", "UNEXPECTED", "server"),
        ("RESOURCE_EXHAUSTED", "OVERLOADED", "load"),
        ("RESOURCE_EXHAUSTED", "OVERLOADED", "caller"),
        ("RESOURCE_EXHAUSTED", "TRITON_FULL", "load"),
        ("INVALID_ARGUMENT", "", "caller"),
    )
]
# The values of a label that only `know` tells.
_TOLD_LATER: tuple[str, ...] = ()

Metric = TypeVar("Metric", Counter, Histogram)
_Known = tuple[Sequence[Mapping[str, str]], dict[str, Sequence[str]]]
_known_labels: dict[Counter | Histogram, _Known] = {}
_told: dict[str, set[str]] = {}


def _at_zero(
    metric: Metric, together: Sequence[Mapping[str, str]] = ({},), **labels: Sequence[str]
) -> Metric:
    """Let the series of a metric exist before anything is counted: rate() does not see how a series begins.

    `labels` has the values of labels that are known, at best all, and `together` values of several labels
    that come together. Each label must be in one of them.
    """
    _known_labels[metric] = together, labels
    _add_series(metric)
    return metric


def know(label: str, known: Iterable[str]) -> None:
    """Say which values a label has that are known only when the server runs: methods, models."""
    _told.setdefault(label, set()).update(known)
    for metric, (_, labels) in _known_labels.items():
        if label in labels:
            _add_series(metric)


def _add_series(metric: Counter | Histogram) -> None:
    together, labels = _known_labels[metric]
    for combination in product(*(known or sorted(_told.get(name, ())) for name, known in labels.items())):
        for others in together:
            metric.labels(**dict(zip(labels, combination, strict=True)), **others)


CALLS = _at_zero(
    Counter(
        "visiongate_calls",
        "Calls that have ended, by gRPC status code, reason, and whose fault that was.",
        ["method", "code", "reason", "fault"],
    ),
    _ENDS,
    method=_TOLD_LATER,
)
CALLER_CALLS = _at_zero(
    Counter(
        "visiongate_caller_calls",
        "Calls that have ended, by the name of the API key (empty without keys) and gRPC status code.",
        ["caller", "code"],
    ),
    caller=_TOLD_LATER,
    code=(*_CODES, "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"),
)
CALL_SECONDS = _at_zero(
    Histogram("visiongate_call_seconds", "Seconds that calls took.", ["method", "code"], buckets=_SECONDS),
    method=_TOLD_LATER,
    code=("OK",),
)
CALLS_IN_FLIGHT = Gauge("visiongate_calls_in_flight", "Calls being answered.", multiprocess_mode="livesum")
MAX_CALLS_IN_FLIGHT = Gauge(
    "visiongate_max_calls_in_flight", "The limit of calls being answered.", multiprocess_mode="livesum"
)
BYTES_IN_FLIGHT = Gauge(
    "visiongate_bytes_in_flight",
    "Bytes that the calls being answered hold: requests and decoded images.",
    multiprocess_mode="livesum",
)
MAX_BYTES_IN_FLIGHT = Gauge(
    "visiongate_max_bytes_in_flight", "The limit of bytes that calls hold.", multiprocess_mode="livesum"
)
REFUSALS = _at_zero(
    Counter("visiongate_refusals", "Calls refused before any work: capacity, or an API key.", ["reason"]),
    reason=("calls", "bytes", "slow", "streams", "caller", "key_missing", "key_unknown"),
)
HTTP_ANSWERS = _at_zero(
    Counter("visiongate_http_answers", "Answers over HTTP, by HTTP status.", ["status"]),
    status=("200", "400", "401", "403", "404", "413", "429", "500", "503", "504"),
)
HTTP_BYTES = Gauge(
    "visiongate_http_bytes",
    "Bytes that requests over HTTP hold: their bodies, and what is made of them.",
    multiprocess_mode="livesum",
)
# Its reasons are those that handshakes.py knows.
HANDSHAKE_FAILURES = Counter(
    "visiongate_handshake_failures", "TLS handshakes that failed, by OpenSSL's reason.", ["reason"]
)
REQUEST_BYTES = _at_zero(
    Counter("visiongate_request_bytes", "Bytes of requests.", ["method"]), method=_TOLD_LATER
)
RESPONSE_BYTES = _at_zero(
    Counter("visiongate_response_bytes", "Bytes of answers.", ["method"]), method=_TOLD_LATER
)
STAGE_SECONDS = _at_zero(
    Histogram(
        "visiongate_stage_seconds",
        "Seconds that the stages of calls took: decode, preprocess, inference, postprocess.",
        ["stage"],
        buckets=_SECONDS,
    ),
    stage=("decode", "preprocess", "inference", "postprocess"),
)
IMAGES = _at_zero(
    Counter(
        "visiongate_images", "Images that requests brought: encoded, raw, uri or by image_id.", ["source"]
    ),
    source=("encoded", "raw", "uri", "image_id"),
)
CACHE_LOOKUPS = _at_zero(
    Counter(
        "visiongate_cache_lookups",
        "Lookups in a cache: hit, miss, or shared with a call that computes the value already.",
        ["cache", "result"],
    ),
    cache=("image", "sam_embedding", "clip_image", "clip_text"),
    result=("hit", "miss", "shared"),
)
CACHE_BYTES = Gauge("visiongate_cache_bytes", "Bytes a cache holds.", ["cache"], multiprocess_mode="livesum")
CACHE_MAX_BYTES = Gauge(
    "visiongate_cache_max_bytes", "Most bytes that a cache may hold.", ["cache"], multiprocess_mode="livesum"
)
TRITON_REQUESTS = _at_zero(
    Counter(
        "visiongate_triton_requests",
        "Inference requests sent to a Triton server, by gRPC status code.",
        ["server", "model", "code"],
    ),
    server=_TOLD_LATER,
    model=_TOLD_LATER,
    code=_CODES,
)
TRITON_SECONDS = _at_zero(
    Histogram(
        "visiongate_triton_seconds",
        "Seconds that a Triton server took, its queue and the way there and back included.",
        ["server", "model", "code"],
        buckets=_SECONDS,
    ),
    server=_TOLD_LATER,
    model=_TOLD_LATER,
    code=("OK",),
)
TRITON_UP = Gauge(
    "visiongate_triton_up", "1 while a Triton server answers.", ["server"], multiprocess_mode="livemin"
)
TRITON_MODEL_READY = Gauge(
    "visiongate_triton_model_ready",
    "1 while a Triton server is ready to run a model that this gateway serves.",
    ["server", "model"],
    multiprocess_mode="livemin",
)
TRITON_IN_FLIGHT = Gauge(
    "visiongate_triton_requests_in_flight",
    "Requests of this gateway that a Triton server has now.",
    ["server"],
    multiprocess_mode="livesum",
)
TRITON_RETRIES = _at_zero(
    Counter(
        "visiongate_triton_retries",
        "Inference requests that were sent again because Triton was unavailable.",
        ["model"],
    ),
    model=_TOLD_LATER,
)
BATCH_SIZE = _at_zero(
    Histogram(
        "visiongate_batch_size",
        "Items of an inference request, before Triton joins requests.",
        ["model"],
        buckets=_BATCHES,
    ),
    model=_TOLD_LATER,
)
CONNECTIONS = Gauge(
    "visiongate_connections",
    "Connections that callers and probes have to the server.",
    multiprocess_mode="livesum",
)
CONNECTIONS_CLOSED = _at_zero(
    Counter(
        "visiongate_connections_closed",
        "Connections that the server closed: an answer was not taken, few descriptors were left, or one peer "
        "had too many.",
        ["reason"],
    ),
    reason=("answer", "descriptors", "peer"),
)
TASKS = Gauge(
    "visiongate_tasks",
    "asyncio's tasks: far more than calls in flight, and ever more, is a leak.",
    multiprocess_mode="livesum",
)
READY = Gauge(
    "visiongate_ready",
    # Not `service`: targets in Kubernetes have a label of that name, which Prometheus would keep instead.
    "1 while a service can answer; the service '' is the server as a whole.",
    ["grpc_service"],
    multiprocess_mode="livemin",
)
RELOADS = _at_zero(
    Counter(
        "visiongate_reloads",
        "Changes of API keys, certificates and models that the running server has taken over, or could not.",
        ["what", "result"],
    ),
    what=("keys", "certificates", "models"),
    result=("ok", "failed"),
)
CERTIFICATE_EXPIRY = Gauge(
    "visiongate_certificate_expiry_seconds",
    "When the server's certificate expires, in seconds since 1970.",
    ["file"],
    multiprocess_mode="livemin",
)
MODEL_INFO = Gauge(
    "visiongate_model_info",
    "1; the labels say which models are served, and of which export.",
    ["family", "variant", "model", "export"],
    multiprocess_mode="livemax",
)
BUILD_INFO = Gauge(
    "visiongate_build_info",
    "1; the labels say what runs.",
    ["version", "python", "grpc"],
    multiprocess_mode="livemax",
)
BUILD_INFO.labels(version("visiongate-server"), platform.python_version(), grpc.__version__).set(1)


def forget_triton(server: str) -> None:
    """Drop what is said of a Triton server that is no more."""
    _told.get("server", set()).discard(server)
    for metric in (TRITON_UP, TRITON_MODEL_READY, TRITON_IN_FLIGHT, TRITON_REQUESTS, TRITON_SECONDS):
        metric.remove_by_labels({"server": server})
    metric_values.drop(lambda series: ("server", server) in series[2])


def describe_models(models: Iterable[Mapping[str, str]]) -> None:
    """Say which models are served, by the labels of MODEL_INFO."""
    MODEL_INFO.clear()
    metric_values.drop(lambda series: series[0] == "visiongate_model_info")
    for labels in models:
        MODEL_INFO.labels(**labels).set(1)


know("caller", [""])


def render(accept: str, registry: CollectorRegistry = REGISTRY) -> tuple[bytes, str]:
    """Return all metrics in a format that an Accept header names, and that format's content type."""
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def readiness(registry: CollectorRegistry = REGISTRY) -> dict[str, bool]:
    """Return whether each service can answer; empty before anything is known."""
    return {
        sample.labels["grpc_service"]: sample.value == 1
        for metric in registry.collect()
        if metric.name == "visiongate_ready"
        for sample in metric.samples
    }


def silent_tritons(registry: CollectorRegistry = REGISTRY) -> list[str]:
    """Return the Triton servers that do not answer."""
    return [
        sample.labels["server"]
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "visiongate_triton_up" and sample.value == 0
    ]

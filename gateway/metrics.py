"""Prometheus metrics. Other modules count with these; nothing here knows those modules."""

import os

WORKER_FOLDER = "VISIONGATE_WORKER_METRICS"
"""The environment variable by which a parent tells its workers where their metrics go."""

# prometheus_client reads its variables when it is imported. Those in the environment are another program's.
for name in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"):
    os.environ.pop(name, None)
if WORKER_FOLDER in os.environ:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = os.environ[WORKER_FOLDER]

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram  # noqa: E402
from prometheus_client.exposition import choose_encoder  # noqa: E402
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead  # noqa: E402

# Seconds: from a cached embedding to a page of text on a CPU.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)

CALLS = Counter(
    "visiongate_calls",
    "Calls that have ended, by gRPC status code, why, and whose doing that was: none, caller, server, load.",
    ["method", "code", "reason", "fault"],
)
CALLER_CALLS = Counter(
    "visiongate_caller_calls",
    "Calls that have ended, by the name of the API key (empty without keys) and gRPC status code.",
    ["caller", "code"],
)
CALL_SECONDS = Histogram(
    "visiongate_call_seconds", "Seconds that calls took.", ["method", "code"], buckets=_SECONDS
)
CALLS_IN_FLIGHT = Gauge("visiongate_calls_in_flight", "Calls being answered.", multiprocess_mode="livesum")
BYTES_IN_FLIGHT = Gauge(
    "visiongate_bytes_in_flight",
    "Bytes that the calls being answered hold: requests and decoded images.",
    multiprocess_mode="livesum",
)
REFUSALS = Counter(
    "visiongate_refusals", "Calls refused before any work: capacity, or an API key.", ["reason"]
)
HANDSHAKE_FAILURES = Counter(
    "visiongate_handshake_failures", "TLS handshakes that failed, by OpenSSL's reason.", ["reason"]
)
REQUEST_BYTES = Counter("visiongate_request_bytes", "Bytes of requests.", ["method"])
RESPONSE_BYTES = Counter("visiongate_response_bytes", "Bytes of answers.", ["method"])
STAGE_SECONDS = Histogram(
    "visiongate_stage_seconds",
    "Seconds that the stages of calls took: decode, preprocess, inference, postprocess.",
    ["stage"],
    buckets=_SECONDS,
)
IMAGES = Counter(
    "visiongate_images", "Images that requests brought: encoded, raw, uri or by image_id.", ["source"]
)
CACHE_LOOKUPS = Counter(
    "visiongate_cache_lookups",
    "Lookups in a cache: hit, miss, or shared with a call that computes the value already.",
    ["cache", "result"],
)
CACHE_BYTES = Gauge("visiongate_cache_bytes", "Bytes a cache holds.", ["cache"], multiprocess_mode="livesum")
TRITON_REQUESTS = Counter(
    "visiongate_triton_requests",
    "Inference requests sent to a Triton server, by gRPC status code.",
    ["server", "model", "code"],
)
TRITON_SECONDS = Histogram(
    "visiongate_triton_seconds",
    "Seconds that a Triton server took, its queue and the way there and back included.",
    ["server", "model", "code"],
    buckets=_SECONDS,
)
TRITON_RETRIES = Counter(
    "visiongate_triton_retries",
    "Inference requests that were sent again because Triton was unavailable.",
    ["model"],
)
TRITON_UP = Gauge(
    "visiongate_triton_up",
    "1 while a Triton server answers; of several gateway processes the least.",
    ["server"],
    multiprocess_mode="livemin",
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
BATCH_SIZE = Histogram(
    "visiongate_batch_size",
    "Items of an inference request, before Triton joins requests.",
    ["model"],
    buckets=_BATCHES,
)
CONNECTIONS = Gauge(
    "visiongate_connections",
    "Connections that callers and probes have to the server.",
    multiprocess_mode="livesum",
)
CONNECTIONS_CLOSED = Counter(
    "visiongate_connections_closed",
    "Connections that the server closed: an answer was not taken, few descriptors were left, or one peer had "
    "too many.",
    ["reason"],
)
TASKS = Gauge(
    "visiongate_tasks",
    "asyncio's tasks: far more than calls in flight, and ever more, is a leak.",
    multiprocess_mode="livesum",
)
# The name of the whole server in gRPC's health protocol.
WHOLE_SERVER = ""
# The folder of the workers whose parent this process is.
_folder = ""
READY = Gauge(
    "visiongate_ready",
    "1 while a service can answer; the service '' is the server as a whole.",
    ["service"],
    multiprocess_mode="livemin",
)


def forget_triton(server: str) -> None:
    """Drop what is said of a Triton server that is no more."""
    for metric in (TRITON_UP, TRITON_MODEL_READY, TRITON_IN_FLIGHT, TRITON_REQUESTS, TRITON_SECONDS):
        metric.remove_by_labels({"server": server})


def render(accept: str) -> tuple[bytes, str]:
    """Return all metrics in a format that an Accept header names, and that format's content type."""
    encode, content_type = choose_encoder(accept)
    return encode(_registry()), content_type


def readiness() -> dict[str, bool]:
    """Return whether each service can answer, in every worker process; empty before any has told."""
    return {
        sample.labels["service"]: sample.value == 1
        for metric in _registry().collect()
        if metric.name == "visiongate_ready"
        for sample in metric.samples
    }


def add_up(folder: str) -> dict[str, str]:
    """Show the metrics of workers from now on. Return what they must find in their environment."""
    global _folder  # noqa: PLW0603
    _folder = folder
    return {WORKER_FOLDER: folder}


def forget_worker(pid: int) -> None:
    """Drop what a worker that has ended says of its present state; what it counted stays."""
    mark_process_dead(pid, _folder)  # type: ignore[no-untyped-call]


def _registry() -> CollectorRegistry:
    """Return the process's metrics, or those of all worker processes."""
    if not _folder:
        return REGISTRY
    # A new registry each time, without the parent's own metrics, which mean nothing.
    registry = CollectorRegistry()
    MultiProcessCollector(registry, _folder)  # type: ignore[no-untyped-call]
    return registry

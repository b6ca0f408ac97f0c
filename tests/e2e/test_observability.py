"""What operators see of a real gateway, run by its command: metrics, log, traces, readiness."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from prometheus_client.parser import text_string_to_metric_families
from skimage import data as skimage_data

from export.demo.serving import REPOSITORY
from gateway import metrics
from gateway.api_keys import ApiKey, write_keys
from gateway.embedded import EmbeddedTriton
from gateway.services.registry import SERVICES
from gateway.settings import Settings
from visiongate import AsyncClient
from visiongate.operations import detection

COMMAND = str(Path(sys.executable).parent / "visiongate")
PHOTO = skimage_data.coffee()
PHRASE = "a very particular phrase"
DETECT = "/visiongate.v1.DetectionService/DetectObjects"
LIST_MODELS = "/visiongate.v1.ModelService/ListModels"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACED_CALLS = 5
GOOD_CALLS = TRACED_CALLS + 1


OPTIONS = (
    *("--repository", str(REPOSITORY), "--port", "0", "--metrics-port", "0"),
    *("--log-format", "json", "--grace-s", "5", "--health-interval-s", "0.1"),
)


class GatewayProcess:
    """`visiongate serve`; must end with 0 on SIGTERM."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [COMMAND, "serve", *OPTIONS, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[str] = []
        self._log_reader = threading.Thread(target=self._read_log)
        self._log_reader.start()

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        self.log.extend(self._process.stderr)

    def __enter__(self) -> "GatewayProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(60)
        finally:
            self._process.kill()
            self._log_reader.join()
            for pipe in (self._process.stdout, self._process.stderr):
                assert pipe is not None
                pipe.close()
        assert code == 0, "".join(self.log)

    def address(self) -> str:
        """Where it answers, once it does. With a log for programs that is a line of the log, too."""
        (line, *_) = eventually(lambda: [line for line in self.log if "visiongate answers at" in line])
        return str(json.loads(line)["message"].split()[3])

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of the HTTP server for operators."""
        (address,) = eventually(
            lambda: [line.rpartition(" at ")[2].partition('"')[0] for line in self.log if "/livez" in line]
        )
        try:
            with urllib.request.urlopen(f"http://{address}{path}", timeout=30) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


def eventually(look: Callable[[], Any]) -> Any:
    """What `look` gives once that is something."""
    end = time.monotonic() + 60
    while not (found := look()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps the spans that come by OTLP over gRPC, from the gateway."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        for resource in request.resource_spans:
            attributes = {item.key: item.value.string_value for item in resource.resource.attributes}
            self.services.add(attributes["service.name"])
            self.spans.extend(span for scope in resource.scope_spans for span in scope.spans)
        return trace_service_pb2.ExportTraceServiceResponse()


@contextmanager
def collecting(collector: Collector) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop(None).wait()


@contextmanager
def collecting_from_triton(spans: list[dict[str, Any]]) -> Iterator[str]:
    """Triton sends its spans by OTLP over HTTP, as JSON."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            for resource in request["resourceSpans"]:
                for scope in resource["scopeSpans"]:
                    spans.extend(scope["spans"])
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/traces"
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Seen:
    """What operators saw of some calls."""

    key: str
    metrics: dict[tuple[str, frozenset[tuple[str, str]]], float] = field(default_factory=dict)
    readiness: tuple[int, str] = (0, "")
    log: str = ""
    collector: Collector = field(default_factory=Collector)
    triton_spans: list[dict[str, Any]] = field(default_factory=list)

    def value(self, name: str, **labels: str) -> float:
        return self.metrics[name, frozenset(labels.items())]

    @property
    def calls(self) -> list[dict[str, Any]]:
        lines = map(json.loads, self.log.splitlines())
        return [line for line in lines if line["logger"] == "gateway.calls"]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """One gateway, with API keys and traces; calls: good ones alike, one that is wrong, one without key."""
    key, secret = ApiKey.generate("app")
    keys = tmp_path_factory.mktemp("keys") / "keys.toml"
    write_keys(keys, [key])
    seen = Seen(secret)
    with (
        collecting_from_triton(seen.triton_spans) as triton_collector,
        _triton(extra_arguments=_traced(triton_collector)) as triton,
        collecting(seen.collector) as collector,
    ):
        with GatewayProcess(
            *("--triton", triton.grpc_address, "--api-keys", str(keys), "--otlp-endpoint", collector)
        ) as gateway:
            _make_calls(gateway.address(), secret)
            _, text = gateway.get("/metrics")
            seen.readiness = gateway.get("/readyz")
        seen.log = "".join(gateway.log)
        # Triton sends its spans a little later.
        eventually(lambda: sum(span["name"] == "InferRequest" for span in seen.triton_spans) == GOOD_CALLS)
    seen.metrics = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    return seen


def _triton(*, grpc_port: int = 0, extra_arguments: Sequence[str] = ()) -> EmbeddedTriton:
    """Triton with the one model that the calls ask, which starts quickly."""
    return EmbeddedTriton(
        REPOSITORY,
        grpc_port=grpc_port,
        model_control="explicit",
        extra_arguments=["--load-model=grounding_dino", *extra_arguments],
    )


def _traced(collector: str) -> list[str]:
    settings = (
        *("mode=opentelemetry", "level=TIMESTAMPS", "rate=1"),
        *(f"opentelemetry,url={collector}", "opentelemetry,bsp_schedule_delay=100"),
    )
    return [f"--trace-config={setting}" for setting in settings]


def _make_calls(address: str, secret: str) -> None:
    known = (("authorization", f"Bearer {secret}"), ("x-request-id", "order-17"))
    request: Any = detection.detect(PHOTO, [PHRASE]).request
    good = request.SerializeToString()
    request.query.min_score = 2
    wrong = request.SerializeToString()
    with grpc.insecure_channel(address) as channel:
        detect: Any = channel.unary_unary(DETECT)
        traced = (*known, ("traceparent", f"00-{TRACE}-{PARENT}-01"))
        for _ in range(TRACED_CALLS):
            detect(good, metadata=traced)
        detect(good, metadata=known)
        for message, metadata in ((wrong, known), (good, ())):
            with pytest.raises(grpc.RpcError):
                detect(message, metadata=metadata)


def test_calls_by_method_code_and_caller(seen: Seen) -> None:
    for code, reason, fault, count in (
        ("OK", "", "none", GOOD_CALLS),
        ("INVALID_ARGUMENT", "", "caller", 1),
        ("UNAUTHENTICATED", "KEY_MISSING", "caller", 1),
    ):
        labels = {"method": DETECT, "code": code}
        assert seen.value("visiongate_calls_total", **labels, reason=reason, fault=fault) == count
        assert seen.value("visiongate_call_seconds_count", **labels) == count
        caller = "" if reason == "KEY_MISSING" else "app"
        assert seen.value("visiongate_caller_calls_total", caller=caller, code=code) == count
    assert seen.value("visiongate_refusals_total", reason="key_missing") == 1
    assert seen.value("visiongate_request_bytes_total", method=DETECT) > GOOD_CALLS * PHOTO.nbytes
    assert seen.value("visiongate_response_bytes_total", method=DETECT) > 0


def test_the_same_image_is_decoded_once(seen: Seen) -> None:
    assert seen.value("visiongate_images_total", source="raw") == GOOD_CALLS
    assert seen.value("visiongate_cache_lookups_total", cache="image", result="miss") == 1
    assert seen.value("visiongate_cache_lookups_total", cache="image", result="hit") == GOOD_CALLS - 1
    assert seen.value("visiongate_cache_bytes", cache="image") == PHOTO.nbytes


def test_limits_stand_beside_what_they_limit(seen: Seen) -> None:
    defaults = Settings()
    assert seen.value("visiongate_max_calls_in_flight") == defaults.max_concurrent_calls
    assert seen.value("visiongate_max_bytes_in_flight") == defaults.max_bytes_in_flight
    for cache in ("image", "sam_embedding", "clip_text", "clip_image"):
        limit = getattr(defaults, f"{cache}_cache_bytes")
        assert seen.value("visiongate_cache_max_bytes", cache=cache) == limit
        assert seen.value("visiongate_cache_bytes", cache=cache) <= limit


def test_what_has_not_happened_is_there_as_zero(seen: Seen) -> None:
    calls, retries = "visiongate_calls_total", "visiongate_triton_retries_total"
    fault = {"code": "INTERNAL", "reason": "UNEXPECTED", "fault": "server"}
    assert seen.value(calls, method=LIST_MODELS, **fault) == 0
    assert seen.value(retries, model="grounding_dino") == 0
    assert seen.value("visiongate_refusals_total", reason="calls") == 0
    assert seen.value("visiongate_reloads_total", what="keys", result="failed") == 0


def test_the_one_process_is_measured(seen: Seen) -> None:
    assert seen.value("process_resident_memory_bytes") > 1e6
    assert seen.value("process_open_fds") < seen.value("process_max_fds")


def test_nothing_is_left_in_flight(seen: Seen) -> None:
    assert seen.value("visiongate_calls_in_flight") == 0
    assert seen.value("visiongate_bytes_in_flight") == 0


def test_stages_and_requests_to_triton_are_measured(seen: Seen) -> None:
    for stage in ("decode", "inference", "postprocess"):
        assert seen.value("visiongate_stage_seconds_count", stage=stage) == GOOD_CALLS
    # Each image is resized. The words are the same in all calls, and are read once.
    assert seen.value("visiongate_stage_seconds_count", stage="preprocess") == GOOD_CALLS + 1
    labels = {"server": seen.calls[0]["triton"], "model": "grounding_dino", "code": "OK"}
    assert seen.value("visiongate_triton_requests_total", **labels) == GOOD_CALLS
    assert seen.value("visiongate_triton_seconds_count", **labels) == GOOD_CALLS
    assert seen.value("visiongate_triton_up", server=labels["server"]) == 1
    assert seen.value("visiongate_batch_size_sum", model="grounding_dino") == GOOD_CALLS


def test_readiness_by_service(seen: Seen) -> None:
    status, body = seen.readiness
    assert status == 200
    assert "visiongate.v1.DetectionService ready\n" in body
    assert len(body.splitlines()) == len(SERVICES)
    assert seen.value("visiongate_ready", grpc_service="") == 1


def test_the_log_has_a_line_a_call(seen: Seen) -> None:
    first, *others = seen.calls[TRACED_CALLS - 1 :]
    assert first["request_id"] == "order-17"
    assert first["method"] == DETECT
    assert first["caller"] == "app"
    assert first["peer"] == "127.0.0.1"
    assert first["trace_id"] == TRACE
    assert first["request_bytes"] > PHOTO.nbytes
    assert {"decode_ms", "preprocess_ms", "inference_ms", "postprocess_ms"} <= set(first)
    assert [line["code"] for line in others] == ["OK", "INVALID_ARGUMENT", "UNAUTHENTICATED"]


def test_the_log_keeps_secrets_and_requests_out(seen: Seen) -> None:
    assert seen.key not in seen.log
    assert "Bearer" not in seen.log
    assert PHRASE not in seen.log
    assert len(seen.log) < 10_000


def test_spans_continue_the_callers_trace_down_into_triton(seen: Seen) -> None:
    spans = [span for span in seen.collector.spans if span.trace_id.hex() == TRACE]
    by_name = {span.name: span for span in spans}
    call, inference = by_name[DETECT[1:]], by_name["inference"]
    request = by_name["inference.GRPCInferenceService/ModelInfer"]
    assert seen.collector.services == {"visiongate"}
    assert call.kind == Span.SPAN_KIND_SERVER
    assert call.parent_span_id.hex() == PARENT
    for stage in ("decode", "preprocess", "inference", "postprocess"):
        assert by_name[stage].parent_span_id == call.span_id
    assert request.kind == Span.SPAN_KIND_CLIENT
    assert request.parent_span_id == inference.span_id
    # Not all: Triton 24.10 misses the header of some large requests, whoever sends them.
    requests = {span.span_id.hex() for span in spans if span.name == request.name}
    assert len(requests) == TRACED_CALLS
    joined = [span for span in seen.triton_spans if span.get("parentSpanId") in requests]
    assert joined
    assert all((span["name"], span["traceId"]) == ("InferRequest", TRACE) for span in joined)


def test_spans_say_how_calls_ended(seen: Seen) -> None:
    codes = [_attributes(span) for span in seen.collector.spans if span.name == DETECT[1:]]
    assert sorted(attributes["rpc.response.status_code"] for attributes in codes) == sorted(
        ["OK"] * GOOD_CALLS + ["INVALID_ARGUMENT", "UNAUTHENTICATED"]
    )
    # None of these is the server's fault.
    assert all(span.status.code == Status.STATUS_CODE_UNSET for span in seen.collector.spans)
    assert seen.key not in str(seen.collector.spans)
    assert PHRASE not in str(seen.collector.spans)


def _attributes(span: Span) -> Mapping[str, str]:
    return {item.key: item.value.string_value for item in span.attributes}


async def test_every_cache_is_counted(demo_client: AsyncClient) -> None:
    def lookups() -> dict[tuple[str, str], float]:
        (family,) = metrics.CACHE_LOOKUPS.collect()
        return {
            (sample.labels["cache"], sample.labels["result"]): sample.value
            for sample in family.samples
            if sample.name.endswith("_total")
        }

    # Not yet in the caches of a gateway that other tests use too.
    photo = np.random.default_rng(17).integers(0, 256, (64, 64, 3), np.uint8)
    label = "a label of this test alone"
    before = lookups()
    for _ in range(2):
        await demo_client.classify([photo], [label])
        await demo_client.encode_image(photo)
    after = lookups()
    counted = {key: after[key] - before.get(key, 0) for key in after if after[key] != before.get(key, 0)}
    assert counted == {
        ("image", "miss"): 1,
        ("image", "hit"): 3,
        ("clip_image", "miss"): 1,
        ("clip_image", "hit"): 1,
        ("clip_text", "miss"): 1,
        ("clip_text", "hit"): 1,
        ("sam_embedding", "miss"): 1,
        ("sam_embedding", "hit"): 1,
    }


def test_readiness_follows_triton_and_the_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with GatewayProcess("--triton", f"127.0.0.1:{port}") as gateway:
        assert gateway.get("/livez")[0] == 200
        eventually(lambda: "DetectionService not ready" in gateway.get("/readyz")[1])
        assert gateway.get("/readyz")[0] == 503
        with _triton(grpc_port=port):
            eventually(lambda: gateway.get("/readyz")[0] == 200)
            address = gateway.address()
        eventually(lambda: gateway.get("/readyz")[0] == 503)
        assert gateway.get("/livez")[0] == 200
        # It still answers what needs no model.
        with grpc.insecure_channel(address) as channel:
            list_models: Any = channel.unary_unary(LIST_MODELS)
            list_models(b"")
        assert f'method="{LIST_MODELS}"' in gateway.get("/metrics")[1]

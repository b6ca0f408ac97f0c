"""What the gateway needs of Triton, as a small protocol, and its tritonclient adapter."""

import asyncio
import json
import random
import re
import socket
import time
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferInput, InferRequestedOutput, InferResult
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from gateway import address, metrics, tracing
from gateway.errors import RequestKilledServerError, StatusError, TritonUnavailableError
from gateway.retries import RetryBudget, Turns
from visiongate.address import join
from visiongate.connection import NO_PROXY

Tensors = Mapping[str, NDArray[Any]]

# For questions that a healthy server answers at once.
HEALTH_TIMEOUT_S = 5.0

# Before this version, a request that is cancelled at the moment of its answer can crash all of Triton: about
# one in a few thousand cancelled requests to quick models does (seen with 2.51; pull request 8078 of
# triton-inference-server/server).
CANCELS_SAFELY = (2, 57)
# An older Triton first gets this long to end the request by itself. Most requests end, and the others seldom
# meet that moment. A server that hangs must not delay its callers for longer.
PATIENCE_S = 5.0

# What gRPC says if a connection breaks under a request. It says other words of a server that refuses it, and
# begins with these if there is no connection at all.
_LOST_CONNECTION = re.compile(
    r"^(?!.*(failed to connect|backends failing)).*"
    r"(Stream removed|Socket closed|Connection reset|Broken pipe|End of TCP stream)",
    re.IGNORECASE,
)

# A request that may have killed a server has others like it wait until its answer, but no longer.
SUSPECT_S = 1.0

# Before each further attempt: a random part of a pause that doubles each time.
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.1, 2.0
# Round robin. A server that takes calls and answers none is left out for a while. Health checks are among the
# calls, so a call that its caller cancelled does not mark a server as useless.
BALANCING = {
    "loadBalancingConfig": [
        {
            "outlier_detection_experimental": {
                "interval": "10s",
                "baseEjectionTime": "30s",
                "maxEjectionTime": "60s",
                "maxEjectionPercent": 50,
                "failurePercentageEjection": {
                    "threshold": 95,
                    "enforcementPercentage": 100,
                    "minimumHosts": 2,
                    "requestVolume": 2,
                },
                "childPolicy": [{"round_robin": {}}],
            }
        }
    ]
}
CHANNEL_ARGUMENTS = [
    # Triton is inside the cluster.
    *NO_PROXY,
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.service_config", json.dumps(BALANCING)),
    # gRPC would wait up to two minutes before it looks again for a server that came back.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.dns_min_time_between_resolutions_ms", 5000),
    # A host that has vanished says nothing. With a keepalive, the kernel gives its connection up once data is
    # unacknowledged for the timeout; without one it would take a quarter of an hour. The pings themselves are
    # rare: Triton hangs up on a client that pings more than once in five minutes of waiting.
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Each channel has its own connections. Otherwise a test's dead server would slow down another's start.
    ("grpc.use_local_subchannel_pool", 1),
]


@dataclass(frozen=True, slots=True)
class ModelState:
    """What Triton says of a model.

    is_changing: it is being loaded or unloaded. reason: why it is not ready otherwise.
    """

    name: str
    ready: bool
    reason: str = ""
    is_changing: bool = False


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Names, data types (such as "UINT8") and ranks, batch dimension included, of a model's tensors.

    max_batch_size: the largest first dimension that a request's tensors may have.
    """

    inputs: Mapping[str, tuple[str, int]]
    outputs: Mapping[str, tuple[str, int]]
    parameters: Mapping[str, str]
    max_batch_size: int = 1


class Triton(Protocol):
    """A Triton server. Every method raises `StatusError`; cancelling the caller cancels the request.

    The caller may then have to wait until the request has ended, so that what it takes up stays counted.
    """

    async def absence(self) -> str:
        """Return why the server does not answer; empty if it does. Never raises."""

    async def models(self) -> list[ModelState]:
        """Return the models of the repository that the server was told to load."""

    async def config(self, model: str) -> ModelConfig:
        """Return the tensors and parameters of a model that is ready to run."""

    async def infer(self, model: str, inputs: Tensors, outputs: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Run a model on tensors whose first dimension is the batch. Return the outputs by name."""


def channel_target(addresses: str) -> str:
    """Return gRPC's target for one address, or for several after commas, whose names are looked up now.

    Raises ValueError if an address is not host:port or its host is unknown.
    """
    parts = [part.strip() for part in addresses.split(",")]
    if len(parts) == 1:
        return address.target(parts[0])
    endpoints = []
    for part in parts:
        host, port = address.split(part)
        try:
            entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise ValueError(f"Triton's address {part!r} has no known host") from error
        endpoints.append((str(entries[0][4][0]), port))
    versions = {6 if ":" in host else 4 for host, _ in endpoints}
    if len(versions) > 1:
        raise ValueError("Triton's addresses are of IPv4 and IPv6: gRPC wants all of one kind")
    return f"ipv{versions.pop()}:{','.join(join(*each) for each in endpoints)}"


class GrpcTriton:
    """One or several Triton servers with the same models, reached by gRPC.

    An inference request that found no server is sent again, up to `attempts` times in all: it changes nothing
    there. One whose connection was lost is sent once more at most, because a request may be what kills
    servers, and only while that is rare. The requests that were with a server when it died are sent again one
    after the other: they would lose the next server too, and be blamed, beside the one that kills servers.
    gRPC's own retry policy would not do: it keeps no more than 256 KiB of a request to send it again, and
    counts nothing.
    """

    def __init__(self, addresses: str, attempts: int = 4) -> None:
        self._addresses = addresses
        self._attempts = attempts
        self._client = InferenceServerClient(channel_target(addresses), channel_args=CHANNEL_ARGUMENTS)
        self._cancels_safely = False
        self._budget = RetryBudget()
        self._suspects = Turns(SUSPECT_S)

    async def close(self) -> None:
        await self._client.close()

    async def absence(self) -> str:
        try:
            server = await self._client.get_server_metadata(client_timeout=HEALTH_TIMEOUT_S)
        except InferenceServerException as error:
            return str(error.message() or _code(error))
        self._cancels_safely = _version(server.version) >= CANCELS_SAFELY
        return ""

    async def models(self) -> list[ModelState]:
        try:
            index = await self._client.get_model_repository_index(client_timeout=HEALTH_TIMEOUT_S)
        except InferenceServerException as error:
            raise self._status(error) from error
        # A row for each version; without a state where nobody asked for the model to be loaded, and with this
        # reason where somebody asked for the contrary.
        rows = [row for row in index.models if row.state and row.reason != "unloaded"]
        return [
            _model_state(name, [row for row in rows if row.name == name]) for name in {r.name for r in rows}
        ]

    async def config(self, model: str) -> ModelConfig:
        try:
            config = (await self._client.get_model_config(model, client_timeout=HEALTH_TIMEOUT_S)).config
        except InferenceServerException as error:
            raise self._status(error, model) from error
        batch = 1 if config.max_batch_size > 0 else 0

        def tensors(specs: Any) -> dict[str, tuple[str, int]]:
            prefix = len("TYPE_")
            data_type = (
                type(config).DESCRIPTOR.fields_by_name["input"].message_type.fields_by_name["data_type"]
            )
            names = data_type.enum_type.values_by_number
            return {
                spec.name: (names[spec.data_type].name[prefix:], len(spec.dims) + batch) for spec in specs
            }

        return ModelConfig(
            tensors(config.input),
            tensors(config.output),
            {key: value.string_value for key, value in config.parameters.items()},
            max(1, config.max_batch_size),
        )

    async def infer(self, model: str, inputs: Tensors, outputs: Sequence[str]) -> dict[str, NDArray[Any]]:
        metrics.BATCH_SIZE.labels(model).observe(len(next(iter(inputs.values()))))
        tensors = []
        for name, array in inputs.items():
            tensor = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(np.ascontiguousarray(array))
            tensors.append(tensor)
        wanted = [InferRequestedOutput(name) for name in outputs]
        has_lost_connection = False
        for attempt in range(1, self._attempts + 1):
            try:
                async with self._suspects.turn() if has_lost_connection else nullcontext():
                    result = await self._send(model, tensors, wanted)
                self._budget.earn()
                return {name: result.as_numpy(name) for name in outputs}
            except InferenceServerException as error:
                code = _code(error)
                is_lost = code == "UNAVAILABLE" and _LOST_CONNECTION.search(error.message() or "")
                if is_lost and has_lost_connection:
                    # Also at the last attempt: callers repeat what is unavailable.
                    raise RequestKilledServerError(
                        f"the model server went away twice while it ran model {model} on this request: it is "
                        "not tried again"
                    ) from error
                if code != "UNAVAILABLE" or attempt == self._attempts:
                    raise self._status(error, model) from error
                if is_lost:
                    has_lost_connection = True
                    if not self._budget.spend():
                        raise self._status(error, model) from error
            metrics.TRITON_RETRIES.labels(model).inc()
            longest = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** (attempt - 1))
            # A call whose deadline passes meanwhile is cancelled, and this sleep with it.
            await asyncio.sleep(random.uniform(0, longest))  # noqa: S311
        raise AssertionError("the last attempt returns or raises")

    async def _send(
        self, model: str, tensors: list[InferInput], wanted: list[InferRequestedOutput]
    ) -> InferResult:
        """Send a request once; count, time and trace it."""
        start = time.perf_counter()
        span = tracing.start_inference(model, self._addresses)
        code = "OK"
        try:
            return await self._cancel_with_care(
                self._client.infer(model, tensors, outputs=wanted, headers=tracing.headers(span))
            )
        except InferenceServerException as error:
            code = _code(error)
            raise
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        finally:
            metrics.TRITON_REQUESTS.labels(model, code).inc()
            metrics.TRITON_SECONDS.labels(model).observe(time.perf_counter() - start)
            tracing.end_inference(span, code)

    async def _cancel_with_care(self, call: Coroutine[Any, Any, InferResult]) -> InferResult:
        """Return the request's result. If it is cancelled, give it time to end if Triton needs that."""
        if self._cancels_safely:
            return await call
        request = asyncio.ensure_future(call)
        try:
            return await asyncio.shield(request)
        except asyncio.CancelledError:
            # A second cancellation does not wait.
            await asyncio.wait([request], timeout=PATIENCE_S)
            raise
        finally:
            if not request.cancel() and not request.cancelled():
                request.exception()  # otherwise Python logs that nobody asked for it

    def _status(self, error: InferenceServerException, model: str = "") -> StatusError:
        """Return Triton's error as a caller sees it. Triton's own words go to the log, as its cause."""
        code = _code(error)
        about = f"model {model}" if model else "the model server"
        if code in ("UNAVAILABLE", "CANCELLED", "NOT_FOUND"):
            # NOT_FOUND and "is not ready" are a model unloaded under way.
            return TritonUnavailableError(f"{about} cannot be reached at present")
        if code == "DEADLINE_EXCEEDED":
            return StatusError(grpc.StatusCode.DEADLINE_EXCEEDED, f"{about} took too long")
        if code == "RESOURCE_EXHAUSTED":
            return StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{about} is full")
        return StatusError(grpc.StatusCode.INTERNAL, f"{about} failed: the server's log says more")


def _model_state(name: str, versions: Sequence[Any]) -> ModelState:
    states = {version.state for version in versions}
    reasons = ", ".join(version.reason for version in versions if version.reason)
    return ModelState(name, "READY" in states, reasons, not states.isdisjoint(("LOADING", "UNLOADING")))


def _version(text: str) -> tuple[int, ...]:
    """Return (2, 51) for 2.51.0, and () for what is no version: older than all."""
    return tuple(int(part) for part in text.split(".")[:2] if part.isdecimal())


def _code(error: InferenceServerException) -> str:
    return str(error.status() or "").removeprefix("StatusCode.")

"""One Triton server: what is known of it, and the requests that it gets."""

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import grpc
import grpc.aio
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from gateway import call, metrics, tracing, triton_wire
from gateway.errors import StatusError, TritonUnavailableError
from gateway.triton import ModelConfig, ModelState, Tensors
from gateway.triton_memory_offer import MemoryOffer
from gateway.triton_shared_memory import SharedTensors
from visiongate.connection import NO_PROXY

# For questions that a healthy server answers at once. One that does not is silent.
HEALTH_TIMEOUT_S = 4.0
# How often a request under way looks whether its server is silent.
_SILENCE_CHECK_S = 0.25

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

# What Triton says of a model that it does not run at present. A server that is not there says other words.
_MODEL_IS_AWAY = re.compile(r"\bmodel\b.*(not found|not ready|no available version)", re.IGNORECASE)

CHANNEL_ARGUMENTS = [
    # Triton is inside the cluster.
    *NO_PROXY,
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # gRPC would wait up to two minutes before it looks again for a server that came back.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A host that has vanished says nothing. With a keepalive, the kernel gives its connection up once data is
    # unacknowledged for the timeout; without one it would take a quarter of an hour. The pings themselves are
    # rare: Triton hangs up on a client that pings more than once in five minutes of waiting.
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Each channel has its own connections. Otherwise a test's dead server would slow down another's start.
    ("grpc.use_local_subchannel_pool", 1),
]


Answer = TypeVar("Answer")


class SilentServerError(Exception):
    """A request has left a server that answers nothing any more."""


class TritonServer:
    """A server, by its address, with what it last said of itself. Nothing is known before the first look.

    is_up: whether it answers. absence: why not. is_silent: it does not, and refuses nothing either.
    states: of the models that it was told to load. configs: of those of them that were asked for and are
    ready. in_flight: requests that it has now. last_turn: the number of the last request, of all servers'
    requests, that it was chosen for. memory: the shared memory that it may read.
    must_share: it counts as up only if it does.
    """

    def __init__(
        self, name: str, target: str, shared: SharedTensors | None = None, *, must_share: bool = False
    ) -> None:
        self.name = name
        self.memory = MemoryOffer(name, shared, self._ask)
        self._must_share = must_share
        metrics.know("server", [name])
        self.is_up = self.is_silent = False
        self.absence = "not asked yet"
        self.version = ""
        self.states: dict[str, ModelState] = {}
        self.configs: dict[str, ModelConfig] = {}
        self.index_error: InferenceServerException | None = None
        self.in_flight = 0
        self.last_turn = -1
        self._cancels_safely = False
        self._channel = grpc.aio.insecure_channel(target, options=CHANNEL_ARGUMENTS)
        self._stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._model_infer: Any = self._channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        self._looking: asyncio.Task[None] | None = None

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking
        await self.memory.withdraw()
        await self._channel.close()
        metrics.forget_triton(self.name)

    def look(self) -> "asyncio.Task[None]":
        """Ask the server what it is and has; return the task, which raises nothing. One look at a time."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        return self._looking

    async def _look(self) -> None:
        metadata: Any
        index: Any
        metadata, index = await asyncio.gather(
            self._ask("ServerMetadata", service_pb2.ServerMetadataRequest()),
            self._ask("RepositoryIndex", service_pb2.RepositoryIndexRequest()),
            return_exceptions=True,
        )
        self.is_silent = (
            isinstance(metadata, InferenceServerException) and code_of(metadata) == "DEADLINE_EXCEEDED"
        )
        if isinstance(metadata, InferenceServerException):
            self.lose(str(metadata.message() or code_of(metadata)))
            return
        if isinstance(metadata, BaseException):
            raise metadata
        await self.memory.make()
        if self._must_share and not self.memory.is_taken:
            self.lose(self.memory.refusal or "it does not say whether it reads shared memory")
            return
        self.is_up, self.absence, self.version = True, "", metadata.version
        self._cancels_safely = _version(metadata.version) >= CANCELS_SAFELY
        self.index_error = index if isinstance(index, InferenceServerException) else None
        if isinstance(index, BaseException):
            return
        # A row for each version; without a state where nobody asked for the model to be loaded, and with this
        # reason where somebody asked for the contrary.
        rows = [row for row in index.models if row.state and row.reason != "unloaded"]
        self.states = {
            name: _model_state(name, [row for row in rows if row.name == name])
            for name in {row.name for row in rows}
        }
        ready = {name for name, state in self.states.items() if state.ready}
        self.configs = {name: config for name, config in self.configs.items() if name in ready}

    def lose(self, absence: str) -> None:
        """Note that the server does not answer, until a look finds it again."""
        self.is_up, self.absence = False, absence
        self.memory.lose()

    def lose_model(self, model: str) -> None:
        """Note that a model is not ready, until a look finds it again."""
        self.configs.pop(model, None)
        self.states.pop(model, None)

    async def ask_config(self, model: str) -> None:
        """Renew what is known of a model; raise InferenceServerException if the server does not tell."""
        try:
            answer = await self._ask("ModelConfig", service_pb2.ModelConfigRequest(name=model))
        except InferenceServerException as error:
            if code_of(error) != "DEADLINE_EXCEEDED":
                self.configs.pop(model, None)
            raise
        self.configs[model] = _model_config(answer.config)

    async def infer(
        self,
        model: str,
        inputs: Tensors,
        outputs: Sequence[str],
        leave: Callable[[], bool] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Send a request once; count, time and trace it. Raises InferenceServerException.

        leave: while the server is silent, it is asked again and again whether the request leaves, which
        raises SilentServerError.
        """
        start = time.perf_counter()
        span = tracing.start_inference(model, self.name)
        call.note_triton(self.name)
        code = "OK"
        self._count(1)
        try:
            metadata = tuple(tracing.headers(span).items())
            try:
                message = triton_wire.request(model, inputs, outputs, self.memory.place)
                return triton_wire.answer(await self._answer(self._send(message, metadata), leave))
            except InferenceServerException as error:
                if not self.memory.is_forgotten(error):
                    raise
            # The next look asks it again.
            self.memory.lose()
            message = triton_wire.request(model, inputs, outputs)
            return triton_wire.answer(await self._answer(self._send(message, metadata), leave))
        except InferenceServerException as error:
            code = code_of(error)
            raise
        except SilentServerError:
            code = "UNAVAILABLE"
            raise
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        finally:
            self._count(-1)
            metrics.TRITON_REQUESTS.labels(self.name, model, code).inc()
            metrics.TRITON_SECONDS.labels(self.name, model, code).observe(time.perf_counter() - start)
            tracing.end_inference(span, code)

    def _count(self, change: int) -> None:
        self.in_flight += change
        metrics.TRITON_IN_FLIGHT.labels(self.name).set(self.in_flight)

    async def _send(self, message: bytes, metadata: tuple[tuple[str, str], ...]) -> bytes:
        try:
            return bytes(await self._model_infer(message, metadata=metadata))
        except grpc.RpcError as error:
            raise _exception(error) from None

    async def _ask(self, method: str, request: Any) -> Any:
        try:
            return await getattr(self._stub, method)(request, timeout=HEALTH_TIMEOUT_S)
        except grpc.RpcError as error:
            raise _exception(error) from None

    async def _answer(self, call: Coroutine[Any, Any, Answer], leave: Callable[[], bool] | None) -> Answer:
        """Return the request's result.

        One that is cancelled, or left with a silent server, has time to end by itself if Triton needs that.
        """
        request = asyncio.ensure_future(call)
        # Otherwise Python logs that nobody asked for the error of one that was left.
        request.add_done_callback(_look_at_error)
        try:
            while not (await asyncio.wait([request], timeout=_SILENCE_CHECK_S))[0]:
                if self.is_silent and leave is not None and leave():
                    self._drop(request)
                    raise SilentServerError
            return request.result()
        except asyncio.CancelledError:
            try:
                # A second cancellation does not wait.
                if not self._cancels_safely:
                    await asyncio.wait([request], timeout=PATIENCE_S)
            finally:
                request.cancel()
            raise

    def _drop(self, request: "asyncio.Future[Any]") -> None:
        """End a request whose result nobody waits for any more."""
        if self._cancels_safely:
            request.cancel()
        else:
            asyncio.get_running_loop().call_later(PATIENCE_S, request.cancel)


def _look_at_error(request: "asyncio.Future[Any]") -> None:
    if not request.cancelled():
        request.exception()


def _exception(error: grpc.RpcError) -> InferenceServerException:
    """Return gRPC's error as Triton's client raises it."""
    failed: Any = error
    return InferenceServerException(failed.details(), str(failed.code()), failed.debug_error_string())


def status_error(error: InferenceServerException, model: str = "") -> StatusError:
    """Return Triton's error as a caller sees it. Triton's own words go to the log, as its cause."""
    code = code_of(error)
    subject = f"model {model}" if model else "the model server"
    about = {"model": model} if model else None
    if code in ("UNAVAILABLE", "CANCELLED", "NOT_FOUND"):
        # NOT_FOUND and "is not ready" are a model unloaded under way.
        return TritonUnavailableError(f"{subject} cannot be reached at present", model)
    codes = grpc.StatusCode
    if code == "DEADLINE_EXCEEDED":
        message = f"{subject} took too long"
        return StatusError(codes.DEADLINE_EXCEEDED, message, reason="TRITON_DEADLINE", about=about)
    if code == "RESOURCE_EXHAUSTED":
        return StatusError(codes.RESOURCE_EXHAUSTED, f"{subject} is full", reason="TRITON_FULL", about=about)
    message = f"{subject} failed: the server's log says more"
    return StatusError(codes.INTERNAL, message, reason="TRITON_FAILED", about=about)


def is_lost(error: InferenceServerException) -> bool:
    """Return whether a connection broke under a request, which may have been the request's doing."""
    return code_of(error) == "UNAVAILABLE" and bool(_LOST_CONNECTION.search(error.message() or ""))


def is_model_away(error: InferenceServerException) -> bool:
    """Return whether the server answers, but does not run the model at present."""
    code = code_of(error)
    return code == "NOT_FOUND" or (
        code == "UNAVAILABLE" and bool(_MODEL_IS_AWAY.search(error.message() or ""))
    )


def code_of(error: InferenceServerException) -> str:
    """Return the name of an error's gRPC status."""
    return str(error.status() or "").removeprefix("StatusCode.")


def _model_config(config: Any) -> ModelConfig:
    batch = 1 if config.max_batch_size > 0 else 0
    data_type = type(config).DESCRIPTOR.fields_by_name["input"].message_type.fields_by_name["data_type"]
    names = data_type.enum_type.values_by_number

    def tensors(specs: Any) -> dict[str, tuple[str, int]]:
        return {
            spec.name: (names[spec.data_type].name.removeprefix("TYPE_"), len(spec.dims) + batch)
            for spec in specs
        }

    return ModelConfig(
        tensors(config.input),
        tensors(config.output),
        {key: value.string_value for key, value in config.parameters.items()},
        max(1, config.max_batch_size),
    )


def _model_state(name: str, versions: Sequence[Any]) -> ModelState:
    states = {version.state for version in versions}
    reasons = ", ".join(version.reason for version in versions if version.reason)
    return ModelState(name, "READY" in states, reasons, not states.isdisjoint(("LOADING", "UNLOADING")))


def _version(text: str) -> tuple[int, ...]:
    """Return (2, 51) for 2.51.0, and () for what is no version: older than all."""
    return tuple(int(part) for part in text.split(".")[:2] if part.isdecimal())

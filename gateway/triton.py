"""What the gateway needs of Triton, as a small protocol, and its tritonclient adapter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferInput, InferRequestedOutput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from gateway.errors import StatusError, TritonUnavailableError

Tensors = Mapping[str, NDArray[Any]]

HEALTH_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class ModelState:
    """A row of Triton's repository index: `reason` says why a model is not ready."""

    name: str
    ready: bool
    reason: str


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
    """A Triton server. Every method raises `StatusError`; cancelling the caller cancels the request."""

    async def is_live(self) -> bool:
        """Whether the server answers. Never raises."""

    async def models(self) -> list[ModelState]:
        """All models of the repository, loaded or not."""

    async def is_model_ready(self, name: str) -> bool:
        """Whether a model answers requests. Never raises."""

    async def config(self, model: str) -> ModelConfig:
        """Tensors and parameters of a loaded model."""

    async def infer(self, model: str, inputs: Tensors, outputs: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Runs a model on tensors whose first dimension is the batch."""


class GrpcTriton:
    """A Triton server reached by gRPC."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._client = InferenceServerClient(address)

    async def close(self) -> None:
        await self._client.close()

    async def is_live(self) -> bool:
        try:
            return bool(await self._client.is_server_live(client_timeout=HEALTH_TIMEOUT_S))
        except InferenceServerException:
            return False

    async def is_model_ready(self, name: str) -> bool:
        try:
            return bool(await self._client.is_model_ready(name, client_timeout=HEALTH_TIMEOUT_S))
        except InferenceServerException:
            return False

    async def models(self) -> list[ModelState]:
        try:
            index = await self._client.get_model_repository_index()
        except InferenceServerException as error:
            raise self._status(error) from error
        return [ModelState(model.name, model.state == "READY", model.reason) for model in index.models]

    async def config(self, model: str) -> ModelConfig:
        try:
            config = (await self._client.get_model_config(model)).config
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
        tensors = []
        for name, array in inputs.items():
            tensor = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(np.ascontiguousarray(array))
            tensors.append(tensor)
        try:
            result = await self._client.infer(
                model, tensors, outputs=[InferRequestedOutput(name) for name in outputs]
            )
        except InferenceServerException as error:
            raise self._status(error, model) from error
        return {name: result.as_numpy(name) for name in outputs}

    def _status(self, error: InferenceServerException, model: str = "") -> StatusError:
        """A caller's view of Triton's error. Its words go to the log, as the exception's cause."""
        code = str(error.status() or "").removeprefix("StatusCode.")
        about = f"model {model}" if model else "the model server"
        if code in ("UNAVAILABLE", "CANCELLED", "NOT_FOUND"):
            # NOT_FOUND and "is not ready" are a model unloaded under way.
            return TritonUnavailableError(f"{about} cannot be reached at present")
        if code == "DEADLINE_EXCEEDED":
            return StatusError(grpc.StatusCode.DEADLINE_EXCEEDED, f"{about} took too long")
        if code == "RESOURCE_EXHAUSTED":
            return StatusError(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{about} is full")
        return StatusError(grpc.StatusCode.INTERNAL, f"{about} failed: the server's log says more")

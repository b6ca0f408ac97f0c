"""What the gateway needs of Triton, as a small protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

Tensors = Mapping[str, NDArray[Any]]


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
    """A Triton server, or several as if they were one.

    Every method raises `StatusError`; cancelling the caller cancels the request. The caller may then have to
    wait until the request has ended, so that what it takes up stays counted.
    """

    async def absence(self) -> str:
        """Return why no server answers; empty if one does. Never raises."""

    async def models(self) -> list[ModelState]:
        """Return the models of the repository that a server was told to load."""

    async def config(self, model: str) -> ModelConfig:
        """Return the tensors and parameters of a model that is ready to run."""

    async def infer(self, model: str, inputs: Tensors, outputs: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Run a model on tensors whose first dimension is the batch. Return the outputs by name."""

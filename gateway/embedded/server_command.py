"""The command line of tritonserver."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from gateway.embedded.environment import triton_folder
from gateway.embedded.error import EmbeddedTritonError
from gateway.embedded.listening import Listening

STOP_GRACE_S = 10

ModelControl = Literal["none", "explicit", "poll"]

# Arguments that may be added although they are given here: Triton takes them more than once.
_MAY_BE_ADDED = {"--backend-config", "--disable-auto-complete-config"}


@dataclass(frozen=True, slots=True)
class ServerCommand:
    """What a tritonserver is started with. is_complete: all configurations name their inputs and outputs."""

    environment: Path
    backends: Path
    name: str
    repository: Path
    model_control: ModelControl
    listening: Listening
    is_complete: bool
    extra_arguments: Sequence[str]

    def arguments(self) -> list[str]:
        """Return program and arguments. Raise EmbeddedTritonError if extra ones contradict the others."""
        own = self._own_arguments()
        taken = set(map(_option, own)) - _MAY_BE_ADDED
        if refused := [option for option in map(_option, self.extra_arguments) if option in taken]:
            raise EmbeddedTritonError(
                f"{', '.join(refused)}: visiongate gives tritonserver this argument itself, see "
                "`visiongate triton --help`"
            )
        if _of_tensorrt(self.extra_arguments):
            raise EmbeddedTritonError(
                "the Triton that pip installs has no TensorRT: leave --model-config-name out, or use "
                "NVIDIA's container"
            )
        return [*own, *self.extra_arguments]

    def _own_arguments(self) -> list[str]:
        triton = triton_folder(self.environment)
        return [
            str(triton / "bin" / "tritonserver"),
            f"--id={self.name}",
            f"--model-repository={self.repository}",
            f"--model-control-mode={self.model_control}",
            f"--backend-directory={self.backends}",
            f"--backend-config=python,shm-region-prefix-name={self.name}",
            f"--cache-directory={triton / 'caches'}",
            *self.listening.arguments(),
            "--allow-gpu-metrics=false",
            f"--exit-timeout-secs={STOP_GRACE_S}",
            # Completion starts and ends a Python process for each model, which takes about a second each.
            *(["--disable-auto-complete-config"] if self.is_complete else []),
        ]


def _of_tensorrt(arguments: Sequence[str]) -> bool:
    """Whether they choose configurations that `visiongate export --engine` writes for TensorRT.

    Triton would refuse some of them without its backend, and run others as if they were for ONNX Runtime.
    """
    words = [word for argument in arguments for word in argument.split("=", 1)]
    names = [name for option, name in pairwise(words) if option == "--model-config-name"]
    return any(name.endswith("tensorrt") for name in names)


def _option(argument: str) -> str:
    return argument.partition("=")[0]

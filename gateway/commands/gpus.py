"""The options of the commands that start Triton from pip: whether and how models run on GPUs."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from pydantic import ByteSize, TypeAdapter, ValidationError

from visiongate.command_error import CommandError
from visiongate.commands.signature import with_options


@dataclass(frozen=True, slots=True)
class Gpus:
    """What is asked for."""

    indices: tuple[int, ...] = ()
    """GPUs by CUDA's numbers; empty: all of them."""
    instances: int | None = None
    """Instances of each model on each GPU; None: as its configuration says, or one."""
    memory_limit: int | None = None
    """The most bytes of a GPU's memory that an instance takes for weights and tensors; None: all there is."""


_OPTIONS: dict[str, Any] = {
    "gpu": Annotated[bool, typer.Option("--gpu", help="Run the models on this machine's NVIDIA GPUs.")],
    "gpus": Annotated[
        str | None,
        typer.Option(
            "--gpus", help="On these alone, by CUDA's numbers: 0,1. Implies --gpu.", metavar="NUMBERS"
        ),
    ],
    "gpu_instances": Annotated[
        int | None,
        typer.Option(
            "--gpu-instances",
            min=1,
            help="Instances of each model on each GPU; by default as its configuration says, or one.",
        ),
    ],
    "gpu_memory_limit": Annotated[
        str | None,
        typer.Option(
            "--gpu-memory-limit",
            help="The most memory that an instance of a model takes for weights and tensors: 8GiB. CUDA "
            "itself takes some 0.5 GiB more.",
            metavar="SIZE",
        ),
    ],
}


def takes_gpus(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command these options, and what they ask for as its first argument: Gpus or None."""
    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=False if name == "gpu" else None,
            annotation=annotation,
        )
        for name, annotation in _OPTIONS.items()
    ]

    @with_options(command, options)
    def run(*arguments: Any, **values: Any) -> None:
        asked = asked_for(**{name: values.pop(name) for name in _OPTIONS})
        command(asked, *arguments, **values)

    return run


def asked_for(
    gpu: bool = False,
    gpus: str | None = None,
    gpu_instances: int | None = None,
    gpu_memory_limit: str | None = None,
) -> Gpus | None:
    """Return what the options ask for, None if that is the CPU. Raises CommandError."""
    if not gpu and gpus is None:
        for flag, value in (("--gpu-instances", gpu_instances), ("--gpu-memory-limit", gpu_memory_limit)):
            if value is not None:
                raise CommandError(f"{flag} is for GPUs: give --gpu too")
        return None
    return Gpus(_indices(gpus), gpu_instances, _bytes(gpu_memory_limit))


def _indices(text: str | None) -> tuple[int, ...]:
    words = [] if text is None else text.split(",")
    if not all(word.isascii() and word.isdecimal() for word in words):
        raise CommandError(f"--gpus is {text!r}: give numbers of GPUs with commas between them, such as 0,1")
    return tuple(sorted({int(word) for word in words}))


def _bytes(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        size = int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        size = 0
    if size < 1:
        raise CommandError(f"--gpu-memory-limit is {text!r}: give a size such as 8GiB")
    return size

"""TensorRT engines: built from a plain ONNX file, with a record of what they fit."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from export.engine_host import TensorRT
from export.errors import ExportError, first_line
from export.graph import Graph

FILE = "model.plan"
RECORD = "model.plan.json"

Profile = Mapping[str, Sequence[list[int]]]
"""The least, the usual and the largest shape of each input."""


@dataclass(frozen=True)
class Record:
    """What an engine was made of, and what runs it."""

    package: str
    """`tensorrt` or `tensorrt_rtx`."""
    version: str
    """Of the package. No other version loads the engine."""
    compute_capability: str
    """Of the GPU, such as "8.9"."""
    gpu: str | None
    """The GPU's name. None if the engine was built for all GPUs of a compute capability."""
    precision: str
    plain_sha256: str
    """Of the ONNX file that it was built from."""
    profile: Profile

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")


def read_record(path: Path) -> Record:
    """Read a record. Raise ExportError, which names the file, if it is none."""
    try:
        return Record(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ExportError(f"{path} is no record of an engine: {first_line(error)}; export again.") from error


def profile(graph: Graph, max_batch_size: int) -> Profile:
    """Return the shapes that an engine is to take: batches up to the largest, other axes by the ranges.

    Engines are built for full batches: single requests are fast anyway.
    """
    ranges = {**graph.ranges, "batch": (1, max_batch_size, max_batch_size)}
    shapes = {}
    for name, example in graph.inputs.items():
        axes = graph.dynamic[name]
        if missing := sorted(set(axes.values()) - ranges.keys()):
            raise ExportError(f"{graph.model}: there is no range for the axis {missing[0]} of {name}.")
        shapes[name] = [
            [ranges[axes[axis]][kind] if axis in axes else size for axis, size in enumerate(example.shape)]
            for kind in range(3)
        ]
    return shapes


def sha256(path: Path) -> str:
    """Return the hash of an ONNX file and of the weights beside it."""
    digest = hashlib.sha256()
    for part in (path, path.with_name(f"{path.name}.data")):
        if part.is_file():
            with part.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def build(library: TensorRT, path: Path, shapes: Profile, model: str, compute_capability: str) -> Any:
    """Build an engine and return its bytes. Raise ExportError with TensorRT's own reason if it refuses.

    `compute_capability` matters to TensorRT for RTX. The other package builds for the GPU that is there.
    """
    trt = library.module
    errors: list[str] = []
    logger = _logger(trt, errors)
    builder = trt.Builder(logger)
    # Each value has the type that the file gives it. From version 11 on there is no other way.
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        raise ExportError(f"TensorRT does not take {model}: {_parser_fault(parser, errors)}.")
    config = builder.create_builder_config()
    ranges = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if tensor.is_shape_tensor:
            raise ExportError(f"TensorRT does not take {model}: the input {tensor.name} decides on shapes.")
        ranges.set_shape(tensor.name, *shapes[tensor.name])
    config.add_optimization_profile(ranges)
    if library.is_rtx:
        config.num_compute_capabilities = 1
        config.set_compute_capability(_architecture(trt, compute_capability), 0)
    try:
        plan = builder.build_serialized_network(network, config)
    except MemoryError as error:
        raise ExportError(_OUT_OF_MEMORY.format(model=model)) from error
    if plan is None:
        if any("memory" in line.lower() for line in errors):
            raise ExportError(_OUT_OF_MEMORY.format(model=model))
        raise ExportError(
            f"TensorRT builds no engine of {model}: {errors[0] if errors else 'it says no reason'}."
        )
    return plan


_OUT_OF_MEMORY = (
    "There is not enough memory to build {model}'s engine: free the GPU, or lower max_batch_size in the "
    "model's config.pbtxt."
)


def _architecture(trt: Any, compute_capability: str) -> Any:
    known = {
        f"{name[2:-1]}.{name[-1]}": value
        for name, value in trt.ComputeCapability.__members__.items()
        if name.startswith("SM")
    }
    if compute_capability not in known:
        raise ExportError(
            f"TensorRT for RTX builds no engines for GPUs of compute capability {compute_capability}; it "
            f"knows {', '.join(known)}."
        )
    return known[compute_capability]


def check_architecture(library: TensorRT, compute_capability: str) -> None:
    """Raise ExportError if TensorRT for RTX does not build for GPUs of this compute capability."""
    _architecture(library.module, compute_capability)


def _logger(trt: Any, errors: list[str]) -> Any:
    """Return a logger that collects errors: what TensorRT prints on its own would drown ours."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                errors.append(message)

    return Logger()


def _parser_fault(parser: Any, errors: list[str]) -> str:
    if parser.num_errors:
        fault = parser.get_error(0)
        return f"{fault.node_operator} {fault.node_name}: {fault.desc()}".strip(". ")
    return (errors[0] if errors else "it says no reason").strip(". ")

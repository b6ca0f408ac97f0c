"""TensorRT engines: built from a plain ONNX file, with a record of what they fit."""

import hashlib
import json
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from export.engine_host import TensorRT
from export.errors import ExportError, first_line
from export.graph import Graph
from visiongate_command import end_at_once, handle_stop_signals

FILE = "model.plan"
RECORD = "model.plan.json"

_OUT_OF_MEMORY = (
    "There is not enough memory to build {model}'s engine: free the GPU, or lower max_batch_size in the "
    "model's config.pbtxt."
)

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
    try:
        builder = trt.Builder(logger)
    except (RuntimeError, TypeError) as error:  # pybind's word for no object
        reason = _reason(errors or [str(error)])
        raise ExportError(f"TensorRT does not start on this host: {reason}.") from error
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
        config.set_compute_capability(architecture(library, compute_capability), 0)
    try:
        with _signals() as received:
            config.progress_monitor = monitor = _monitor(trt, received)
            plan = builder.build_serialized_network(network, config)
            del monitor  # TensorRT needs it until here
    except MemoryError as error:
        raise ExportError(_OUT_OF_MEMORY.format(model=model)) from error
    if plan is None:
        if any("memory" in line.lower() for line in errors):
            raise ExportError(_OUT_OF_MEMORY.format(model=model))
        raise ExportError(f"TensorRT builds no engine of {model}: {_reason(errors)}.")
    return plan


def architecture(library: TensorRT, compute_capability: str) -> Any:
    """Return what TensorRT for RTX calls GPUs of a compute capability. Raise ExportError if it knows none."""
    known = {
        f"{name[2:-1]}.{name[-1]}": value
        for name, value in library.module.ComputeCapability.__members__.items()
        if name.startswith("SM")
    }
    if compute_capability not in known:
        raise ExportError(
            f"TensorRT for RTX builds no engines for GPUs of compute capability {compute_capability}; it "
            f"knows {', '.join(known)}."
        )
    return known[compute_capability]


def _logger(trt: Any, errors: list[str]) -> Any:
    """Return a logger that collects errors: what TensorRT prints on its own would drown ours."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                errors.append(message)

    return Logger()


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Yield a list of the signals to stop that come meanwhile, and raise SystemExit at the end if any came.

    Handlers run within TensorRT's calls of Python, and TensorRT drops what they raise there. A third signal
    ends the process.
    """
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 2:
            end_at_once(number, frame)

    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread may handle signals
        return
    before = handle_stop_signals(receive)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        raise SystemExit(128 + received[0])


def _monitor(trt: Any, received: Sequence[int]) -> Any:
    """Return what TensorRT asks, after each step of a build, whether to go on."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            pass

        def phase_finish(self, name: str) -> None:
            pass

        def step_complete(self, name: str, step: int) -> bool:
            return not received

    return Monitor()


def _parser_fault(parser: Any, errors: list[str]) -> str:
    if parser.num_errors:
        fault = parser.get_error(0)
        return f"{fault.node_operator} {fault.node_name}: {fault.desc()}".strip(". ")
    return _reason(errors)


def _reason(errors: Sequence[str]) -> str:
    """Return the first of TensorRT's errors: the others follow from it."""
    return first_line(ValueError(errors[0])).strip(". ") if errors else "it says no reason"

"""What runs a graph: ONNX Runtime's own operators, or TensorRT.

Whatever is chosen, a model's folder has `1/model.onnx` and `config.pbtxt`. What another engine needs stands
beside them, and Triton's `--model-config-name` chooses it.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from export import engine_host, engine_plan, triton_config
from export.errors import ExportError
from export.graph import Graph
from export.half import Precision

Step = Callable[[str], AbstractContextManager[None]]

CACHE = "/var/cache/visiongate-engines"
"""Where ONNX Runtime keeps the engines that TensorRT builds for it."""
PLAIN = "plain.onnx"
"""The graph without ONNX Runtime's own operators."""
CONFIGS = ("tensorrt.pbtxt", "onnxruntime-tensorrt.pbtxt")
"""In the folder `configs` of a model. They belong to the files of one export."""


class Engine(StrEnum):
    """What runs a graph on a GPU. The values are also names for Triton's `--model-config-name`."""

    onnxruntime = "onnxruntime"
    """`model.onnx` with ONNX Runtime's own operators, on CPUs and GPUs."""
    onnxruntime_tensorrt = "onnxruntime-tensorrt"
    """ONNX Runtime gives the plain graph to TensorRT, which builds its engine when the model is loaded."""
    tensorrt = "tensorrt"
    """An engine that is built here, for this kind of GPU and this version of TensorRT."""


@dataclass(frozen=True)
class Target:
    """What graphs are exported for."""

    engine: Engine = Engine.onnxruntime
    compute_capability: str | None = None
    """Of the GPU that an engine is built for, such as "8.9", if that is not the one of this host."""
    cache: str = CACHE
    """The folder on Triton's host in which ONNX Runtime keeps its engines."""

    @property
    def needs_plain(self) -> bool:
        """Whether it needs the graph without ONNX Runtime's own operators."""
        return self.engine is not Engine.onnxruntime

    @property
    def notice(self) -> str:
        """What is to be known before Triton loads the models."""
        if self.engine is Engine.onnxruntime_tensorrt:
            return (
                f"Triton with --model-config-name={self.engine.value} builds the engines when it first loads "
                f"the models, which takes minutes for each, and keeps them in {self.cache}: give it a folder "
                "there that stays and that it may write to."
            )
        if self.engine is Engine.tensorrt:
            if engine_host.tensorrt().is_rtx:
                return "Triton has no backend for engines of tensorrt_rtx: it serves the ONNX files."
            return f"Triton runs the engines with --model-config-name={self.engine.value}."
        return ""


DEFAULT_TARGET = Target()


def check(target: Target, precision: Precision) -> None:
    """Raise ExportError if this host cannot make what the target needs. It takes no time to find out."""
    if target.needs_plain and precision is Precision.int8:
        raise ExportError(f"--precision int8 is for CPUs: leave out --engine {target.engine.value}.")
    if target.compute_capability is not None and target.engine is not Engine.tensorrt:
        raise ExportError("--compute-capability belongs to --engine tensorrt.")
    if target.cache != CACHE and target.engine is not Engine.onnxruntime_tensorrt:
        raise ExportError("--engine-cache belongs to --engine onnxruntime-tensorrt.")
    if not Path(target.cache).is_absolute():
        raise ExportError(
            f"--engine-cache is {target.cache!r}: give the folder's whole path on Triton's host."
        )
    if target.engine is Engine.tensorrt:
        _gpu(target)


def _gpu(target: Target) -> tuple[engine_host.TensorRT, str, str | None]:
    """Return TensorRT, the compute capability to build for, and the GPU's name if it is the one here."""
    library = engine_host.tensorrt()
    wanted = target.compute_capability
    if wanted is not None and not library.is_rtx:
        raise ExportError(
            "The package tensorrt builds engines only for the GPU of this host: leave out "
            "--compute-capability."
        )
    name = None
    if wanted is None:
        gpu = engine_host.gpu()
        if gpu is None:
            raise ExportError(
                "TensorRT's engines are built for a GPU, and this host has none (or no driver)"
                + (": name its kind with --compute-capability, such as 8.9." if library.is_rtx else ".")
            )
        wanted, name = gpu.compute_capability, gpu.name
    if library.is_rtx:
        engine_plan.architecture(library, wanted)
    return library, wanted, name


def add(
    target: Target,
    graph: Graph,
    plain: Path,
    folder: Path,
    placed: Path,
    *,
    precision: Precision,
    step: Step,
) -> None:
    """Add what the target needs to a model's folder, beside `1/model.onnx` and `config.pbtxt`.

    plain: the file of the plain graph, which has been compared. placed: the model's folder in the repository,
    whose engine is taken over if it fits. Triton gets a config for an engine of the package `tensorrt`. It
    has no backend for engines of TensorRT for RTX, which are for programs that load them on their own.
    """
    config = folder / "config.pbtxt"
    version = folder / "1"
    served = triton_config.parse(config.read_text(encoding="utf-8"), config)
    largest = graph.ranges["batch"][2] if "batch" in graph.ranges else served.max_batch_size
    triton_config.bound_batches(served, largest)
    shapes = engine_plan.profile(graph, served.max_batch_size)
    if target.engine is Engine.onnxruntime_tensorrt:
        for part in plain.parent.iterdir():
            part.rename(version / part.name)
        prefix = f"{graph.model}-{engine_plan.sha256(version / PLAIN)[:16]}"
        variant = triton_config.for_accelerator(served, PLAIN, shapes, target.cache, prefix)
    else:
        library, compute_capability, gpu = _gpu(target)
        record = engine_plan.Record(
            library.package,
            library.version,
            compute_capability,
            gpu,
            precision.value,
            engine_plan.sha256(plain),
            shapes,
        )
        if not _take_over(record, placed / "1", version):
            with step(f"{graph.model}: build the engine with {library.package} {library.version}"):
                plan = engine_plan.build(library, plain, shapes, graph.model, compute_capability)
                (version / engine_plan.FILE).write_bytes(plan)
            record.write(version / engine_plan.RECORD)
        if library.is_rtx:
            return
        variant = triton_config.for_plan(served, engine_plan.FILE)
    path = folder / "configs" / f"{target.engine.value}.pbtxt"
    path.parent.mkdir(exist_ok=True)
    path.write_text(variant, encoding="utf-8")


def _take_over(record: engine_plan.Record, source: Path, version: Path) -> bool:
    """Take the engine of the folder `source` over if it has this record. Return whether it was."""
    old = source / engine_plan.RECORD
    if not old.is_file() or not (source / engine_plan.FILE).is_file():
        return False
    try:
        if engine_plan.read_record(old) != record:
            return False
    except ExportError:
        return False
    for name in (engine_plan.FILE, engine_plan.RECORD):
        try:
            os.link(source / name, version / name)
        except OSError:  # the filesystem has no hard links
            shutil.copy2(source / name, version / name)
    return True

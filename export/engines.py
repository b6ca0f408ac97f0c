"""What runs a graph: ONNX Runtime's own operators, or TensorRT."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path

from export.graph import Graph
from export.half import Precision

Step = Callable[[str], AbstractContextManager[None]]


class Engine(StrEnum):
    """What runs a graph on a GPU. The values are also names for Triton's `--model-config-name`."""

    onnxruntime = "onnxruntime"
    """`model.onnx` with ONNX Runtime's own operators, on CPUs and GPUs."""
    onnxruntime_tensorrt = "onnxruntime-tensorrt"
    """ONNX Runtime gives the plain graph to TensorRT, which builds its engine when the model is loaded."""
    tensorrt = "tensorrt"
    """An engine that is built here, for this kind of GPU and this version of TensorRT."""


def add(engine: Engine, graph: Graph, folder: Path, *, precision: Precision, step: Step) -> None:
    """Add what `engine` needs to a model's folder, beside `model.onnx` and `config.pbtxt`."""
    if engine is not Engine.onnxruntime:
        raise NotImplementedError((engine, graph.model, folder, precision, step))

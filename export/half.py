"""ONNX models in half precision, whose inputs and outputs keep their types."""

import warnings
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

# Weights of fewer numbers than this stay float32: a cast would cost as much as it saves.
MIN_STORED_HALF = 256


class Precision(StrEnum):
    """What a graph computes in, and what its file holds."""

    fp32 = "fp32"
    fp16 = "fp16"
    fp16_weights = "fp16-weights"
    """The file holds halves. They become float32 when it is loaded."""
    int8 = "int8"
    """Linear layers multiply bytes, scaled by what each input holds. For CPUs."""


def everything(path: Path) -> Any:
    """Compute in half precision wherever ONNX Runtime's converter calls it safe: fastest, least exact."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    with warnings.catch_warnings():
        # The converter warns of every weight below the smallest half.
        warnings.simplefilter("ignore")
        # A path and not a model: shape inference on more than 2 GiB works with files only.
        model = convert_float_to_float16(str(path), keep_io_types=True)
    # The converter appends its casts to the end instead of putting them where they belong.
    OnnxModel(model).topological_sort()
    return model


def products(path: Path, kept_out: Sequence[str]) -> Any:
    """Compute matrix products and convolutions in half precision and all else in float32, as autocast does.

    Nodes whose names contain a part in `kept_out` stay in float32, too. The names are PyTorch's module paths.
    The converter's block list cannot do this: it rounds to half between two blocked operators.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(str(path))
    weights = {w.name: w for w in model.graph.initializer if w.data_type == TensorProto.FLOAT}
    halves: dict[str, str] = {}
    nodes: list[Any] = []

    def half(name: str) -> str:
        if name not in halves:
            halves[name] = f"{name}_half"
            if name in weights:
                values = numpy_helper.to_array(weights[name]).clip(-65504, 65504).astype(np.float16)
                model.graph.initializer.append(numpy_helper.from_array(values, halves[name]))
            else:
                nodes.append(helper.make_node("Cast", [name], [halves[name]], to=TensorProto.FLOAT16))
        return halves[name]

    for node in model.graph.node:
        if node.op_type not in {"MatMul", "Gemm", "Conv", "ConvTranspose"} or any(
            part in node.name for part in kept_out
        ):
            nodes.append(node)
            continue
        for i, name in enumerate(node.input):
            if name:
                node.input[i] = half(name)
        result = node.output[0]
        node.output[0] = f"{result}_in_half"
        nodes.append(node)
        nodes.append(helper.make_node("Cast", [node.output[0]], [result], to=TensorProto.FLOAT))

    del model.graph.node[:]
    model.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [weight for weight in model.graph.initializer if weight.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model


def weights(path: Path) -> Any:
    """Store weights as halves and compute in float32: half the file, at the speed of the float32 model.

    ONNX Runtime and TensorRT cast the weights once, while they load the graph.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(str(path))
    casts = []
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if weight.data_type == TensorProto.FLOAT and values.size >= MIN_STORED_HALF:
            stored = f"{weight.name}_half"
            casts.append(helper.make_node("Cast", [stored], [weight.name], to=TensorProto.FLOAT))
            weight.CopyFrom(numpy_helper.from_array(values.clip(-65504, 65504).astype(np.float16), stored))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])
    return model

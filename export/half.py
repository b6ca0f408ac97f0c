"""ONNX models in half precision, whose inputs and outputs keep their types."""

from collections.abc import Collection, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

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


def computed(path: Path, kept_out: Sequence[str] = (), too_large: Collection[str] = ()) -> Any:
    """Return the model of a float32 file that computes in half precision.

    `half_choice.Choice` says which nodes do, and what `kept_out` and `too_large` are.
    """
    import onnx

    from export import half_graph

    return half_graph.converted(onnx.load(str(path)), kept_out, too_large).model


def weights(path: Path) -> Any:
    """Store weights as halves and compute in float32: half the file, at the speed of the float32 model.

    ONNX Runtime and TensorRT cast the weights once, while they load the graph.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from export.half_graph import rounded

    model = onnx.load(str(path))
    casts = []
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if weight.data_type == TensorProto.FLOAT and values.size >= MIN_STORED_HALF:
            stored = f"{weight.name}_half"
            casts.append(helper.make_node("Cast", [stored], [weight.name], to=TensorProto.FLOAT))
            weight.CopyFrom(rounded(weight, stored))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])
    return model

"""How much arithmetic a model's answer takes: the multiplications of its products and convolutions.

Counted on the plain float32 graph with the shapes that ONNX Runtime saw in one run. Shape inference alone
does not follow the sizes of the graphs that TorchScript's exporter writes.
"""

import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from numpy.typing import NDArray

Shape = Sequence[int]
# Products that no rule below counts.
_UNCOUNTED = {"MultiHeadAttention", "Attention", "GRU", "RNN", "MatMulInteger"}


def count(model: onnx.ModelProto, feed: Mapping[str, NDArray[Any]]) -> int:
    """Return the multiply-accumulates of a run with these inputs.

    Raises ValueError for a node that no rule counts.
    """
    equations = {
        node.name: onnx.helper.get_node_attr_value(node, "equation").decode()
        for node in model.graph.node
        if node.op_type == "Einsum"
    }
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder, "profile"))
        # Otherwise the nodes that ran are not those of the file.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        # Weights that were packed are not among a node's inputs any more.
        options.add_session_config_entry("session.disable_prepacking", "1")
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        session.run(None, dict(feed))
        events = json.loads(Path(session.end_profiling()).read_text())
    total = 0
    for event in events:
        name = event["name"].removesuffix("_kernel_time")
        if event.get("cat") != "Node" or name == event["name"]:
            continue
        operator = event["args"]["op_name"]
        if operator in _UNCOUNTED:
            raise ValueError(f"no rule counts {operator}: count the plain graph")
        inputs, outputs = _shapes(event, "input"), _shapes(event, "output")
        if operator == "Einsum":
            total += of_einsum(equations[name], inputs)
        elif operator in _RULES:
            total += _RULES[operator](inputs, outputs[0])
    return total


def of_einsum(equation: str, inputs: Sequence[Shape]) -> int:
    """Return the multiply-accumulates of a product that is written in letters, without an ellipsis."""
    letters = equation.partition("->")[0].replace(" ", "").split(",")
    sizes = {
        letter: size
        for word, shape in zip(letters, inputs, strict=True)
        for letter, size in zip(word, shape, strict=True)
    }
    return math.prod(sizes.values())


_RULES: dict[str, Callable[[list[Shape], Shape], int]] = {
    "MatMul": lambda inputs, output: math.prod(output) * inputs[0][-1],
    # Either factor may be transposed: what is summed over is what the first has beside the rows.
    "Gemm": lambda inputs, output: math.prod(inputs[0]) * output[1],
    "Conv": lambda inputs, output: math.prod(output) * math.prod(inputs[1][1:]),
    # Every step of every direction multiplies its input and its state by all four gates.
    "LSTM": lambda inputs, _output: (
        inputs[0][0] * inputs[0][1] * (math.prod(inputs[1]) + math.prod(inputs[2]))
    ),
    "ConvTranspose": lambda inputs, _output: math.prod(inputs[0]) * math.prod(inputs[1][1:]),
}


def _shapes(event: Any, which: str) -> list[Shape]:
    return [shape for typed in event["args"][f"{which}_type_shape"] for shape in typed.values()]

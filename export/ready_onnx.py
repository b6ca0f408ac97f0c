"""Ready ONNX files as parts of exported ones: checked, and with the inputs and outputs of the gateway."""

from pathlib import Path
from typing import Any

from export.errors import ExportError, first_line

OPSET = 18
IR_VERSION = 10
PREFIX = "network_"
"""The prefix of every tensor's name in a wrapped file, except its outputs."""


def read(path: Path) -> Any:
    """Load an ONNX file of any version as a model of OPSET and IR_VERSION, or raise ExportError."""
    import onnx
    from onnx import version_converter

    if not path.is_file():
        raise ExportError(f"There is no file {path}.")
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except Exception as error:
        raise ExportError(f"{path} is not a valid ONNX file: {first_line(error)}") from error
    try:
        model = version_converter.convert_version(model, OPSET)
    except Exception as error:
        raise ExportError(f"{path} does not convert to opset {OPSET}: {first_line(error)}") from error
    model.ir_version = IR_VERSION
    return model


def session(path: Path) -> Any:
    """Open the unchanged file in ONNX Runtime. It is the reference for the graph that is made of it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def shapes(values: Any) -> dict[str, list[int | str]]:
    """Return the shapes of a graph's inputs or outputs by name. Dynamic dimensions are strings."""
    return {
        value.name: [
            dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?"
            for dim in value.type.tensor_type.shape.dim
        ]
        for value in values
    }


def free_batch(model: Any) -> None:
    """Let reshapes accept any batch size if the file's exporter fixed it at 1.

    A 0 in the target of a reshape keeps the dimension as it is.
    """
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "Reshape" or node.input[1] not in constants:
            continue
        target = numpy_helper.to_array(constants[node.input[1]]).copy()
        if len(target) > 1 and target[0] == 1 and target[1] == -1:
            target[0] = 0
            constants[node.input[1]].CopyFrom(numpy_helper.from_array(target, node.input[1]))


def wrap(model: Any, before: str, after: str | None = None) -> Any:
    """Return the model with a graph before it, and one after it.

    Both are in ONNX's textual syntax. The outputs of `before` are the model's inputs, with PREFIX before
    their names. The inputs of `after` are outputs of the model under their own names.
    """
    from onnx import compose

    model = compose.add_prefix(model, PREFIX, rename_outputs=False)
    # The wrapped model also runs at other sizes than those that the file's exporter recorded.
    del model.graph.value_info[:]
    first = _parse(before)
    whole = compose.merge_models(first, model, [(v.name, v.name) for v in first.graph.output])
    if after is not None:
        last = _parse(after)
        names = [value.name for value in last.graph.input]
        whole = compose.merge_models(
            whole,
            last,
            [(name, name) for name in names],
            outputs=[value.name for value in last.graph.output],
        )
    return whole


def _parse(text: str) -> Any:
    from onnx import parser

    return parser.parse_model(f'<ir_version: {IR_VERSION}, opset_import: ["" : {OPSET}]>\n{text}')

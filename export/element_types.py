"""The element type of every tensor in an ONNX graph.

ONNX's shape inference also knows them, but stops behind operators of other domains, such as ONNX Runtime's own.
"""

from typing import Any

import numpy as np
from onnx import TensorProto, defs, helper


def element_types(model: Any) -> dict[str, int]:
    """Return the type of each tensor of a model's main graph by name, as in `onnx.TensorProto.DataType`.

    Tensors that only a graph inside of a node has are not among them.
    """
    graph = model.graph
    types = {weight.name: weight.data_type for weight in graph.initializer}
    for value in [*graph.value_info, *graph.input, *graph.output]:
        if value.type.HasField("tensor_type"):
            types[value.name] = value.type.tensor_type.elem_type
    versions = {entry.domain: entry.version for entry in model.opset_import}
    for node in graph.node:
        for index, name in enumerate(node.output):
            found = _output_type(node, index, types, versions)
            if name and found:
                types[name] = found
    return types


def _output_type(node: Any, index: int, types: dict[str, int], versions: dict[str, int]) -> int:
    """Return the type of a node's output, or 0 if only the graph itself can tell."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type == "Cast":
        return int(attributes["to"].i)
    if node.op_type in {"Constant", "ConstantOfShape"}:
        return _constant_type(attributes)
    try:
        schema = defs.get_schema(node.op_type, versions.get(node.domain, 1), node.domain)
    except defs.SchemaError:
        return types.get(node.input[0], 0)
    wanted = schema.outputs[min(index, len(schema.outputs) - 1)].type_str
    if wanted.startswith("tensor("):
        return int(helper.np_dtype_to_tensor_dtype(_numpy_type(wanted)))
    for place, name in enumerate(node.input):
        formal = schema.inputs[min(place, len(schema.inputs) - 1)]
        if formal.type_str == wanted and name in types:
            return types[name]
    return 0


def _constant_type(attributes: dict[str, Any]) -> int:
    if "value" in attributes:
        return int(attributes["value"].t.data_type)
    for name, kind in (("value_int", TensorProto.INT64), ("value_string", TensorProto.STRING)):
        if any(key.startswith(name) for key in attributes):
            return int(kind)
    return int(TensorProto.FLOAT)


def _numpy_type(text: str) -> Any:
    """Return NumPy's type of such as `tensor(int64)`."""
    name = text.removeprefix("tensor(").removesuffix(")")
    return np.dtype({"float": "float32", "double": "float64"}.get(name, name))

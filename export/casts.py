"""Bytes that become floats before anything else is done with them, as TensorRT wants it.

TensorRT's parser takes uint8 only into a Cast. A graph that transposes or gathers bytes, or asks for their
shape, does not parse.
"""

from typing import Any


def first(model: Any) -> None:
    """Put a Cast to float32 right behind each uint8 input of an ONNX model, and move all its readers there.

    The readers may be those that move values about, such as Transpose, Gather and Shape. What they bring is
    then float32 too, and a later Cast to float32 does nothing.
    """
    from onnx import TensorProto, helper

    graph = model.graph
    for value in graph.input:
        if value.type.tensor_type.elem_type != TensorProto.UINT8 or _is_cast_only(graph, value.name):
            continue
        floats = f"{value.name}_in_float"
        _rename_reads(graph, value.name, floats)
        graph.node.insert(0, helper.make_node("Cast", [value.name], [floats], to=TensorProto.FLOAT))


def readers(graph: Any, name: str) -> list[Any]:
    """Return the nodes that read a value, also those in the branches and loops of a graph."""
    found = []
    for node in graph.node:
        if name in node.input:
            found.append(node)
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                found += readers(inner, name)
    return found


def _is_cast_only(graph: Any, name: str) -> bool:
    return all(node.op_type == "Cast" for node in readers(graph, name))


def _rename_reads(graph: Any, name: str, new: str) -> None:
    for node in readers(graph, name):
        node.input[:] = [new if value == name else value for value in node.input]

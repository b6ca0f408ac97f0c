"""ONNX models whose linear layers multiply bytes, for CPUs.

Weights are bytes with a scale for each column. What a layer is given becomes bytes while it runs, with one
scale for the whole batch. All else stays float32. Nothing is calibrated.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
from onnx import helper

from export.element_types import element_types
from export.graph import Graph
from export.measures import Gate

TOLERANCE = 1.0
"""The largest difference, as a share of the largest value. It finds what is broken: the gate is the proof."""


def converted(path: Path) -> Any:
    """Return the model of a float32 file with dynamically quantised linear layers."""
    model = onnx.load(str(path))
    _name_types(model)
    with TemporaryDirectory() as folder, _silence():
        from onnxruntime.quantization import QuantType, quantize_dynamic

        result = Path(folder) / path.name
        quantize_dynamic(
            model,
            result,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            # Weights of 7 bits. CPUs without VNNI add two products in 16 bits: with 8 bits they overflow.
            reduce_range=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=True,
            extra_options={"MatMulConstBOnly": True},
        )
        return onnx.load(str(result))


def gate_of(graph: Graph) -> Gate:
    """Return what a graph is held to at int8. Families without such gates are refused before."""
    assert graph.int8_gate is not None
    return graph.int8_gate()


def _name_types(model: Any) -> None:
    """Write the type of every tensor into a model.

    The quantiser leaves out, in silence, a layer whose input has none. ONNX's inference finds none behind
    ONNX Runtime's own operators.
    """
    known = {value.name for value in [*model.graph.value_info, *model.graph.input, *model.graph.output]}
    known |= {weight.name for weight in model.graph.initializer}
    for name, kind in element_types(model).items():
        if name not in known:
            model.graph.value_info.append(helper.make_tensor_value_info(name, kind, None))


@contextmanager
def _silence() -> Iterator[None]:
    """Drop the quantiser's advice.

    Without a handler, it would set up the log of the whole process, and does so already when it is imported.
    """
    handler = logging.NullHandler()
    logging.root.addHandler(handler)
    try:
        yield
    finally:
        logging.root.removeHandler(handler)

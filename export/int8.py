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

import numpy as np
import onnx
from onnx import helper

from export import parity
from export.element_types import element_types
from export.engines import Engine
from export.errors import ExportError
from export.graph import Export, Graph
from export.half import Precision

TOLERANCE = 1.0
"""The largest difference, as a share of the largest value. It finds what is broken: the gate is the proof."""


def require(export: Export, precision: Precision, engine: Engine) -> None:
    """Raise ExportError if an export is to be int8 and cannot be."""
    if precision is not Precision.int8:
        return
    if engine is not Engine.onnxruntime:
        raise ExportError(f"--precision int8 is for CPUs: --engine {engine} takes fp32 or fp16.")
    if graph := next((graph for graph in export.graphs if graph.int8_gate is None), None):
        raise ExportError(
            f"{graph.model} cannot be int8: only clip measures what that does to its answers; --precision "
            "fp16-weights halves any file."
        )


def converted(path: Path) -> Any:
    """Return the model of a float32 file with dynamically quantised linear layers."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(str(path))
    _name_types(model)
    with TemporaryDirectory() as folder, _silence():
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


def check(graph: Graph, session: Any) -> dict[str, float]:
    """Return the worst values of the measures of a graph's gate. Raise ExportError if one is not kept."""
    assert graph.int8_gate is not None  # `require` has seen to it
    gate = graph.int8_gate()
    worst: dict[str, float] = {}
    for case in gate.cases:
        actual = parity.run(session, case)
        expected = graph.reference(case, actual)
        for measure in gate.measures:
            value = measure.of(case, actual, expected)
            pick = np.minimum if measure.is_least else np.maximum
            worst[measure.name] = float(pick(worst.get(measure.name, value), value))
    for measure in gate.measures:
        value = worst[measure.name]
        # Written so that NaN fails.
        if not (value >= measure.limit if measure.is_least else value <= measure.limit):
            bound = "least" if measure.is_least else "most"
            raise ExportError(
                f"{graph.model} loses too much at int8: its {measure.name} is {value:.4f}, and at {bound} "
                f"{measure.limit} is allowed; use --precision fp32 or fp16-weights."
            )
    return worst


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
    """Drop the quantiser's advice. Without a handler, it would set up the log of the whole process."""
    handler = logging.NullHandler()
    logging.root.addHandler(handler)
    try:
        yield
    finally:
        logging.root.removeHandler(handler)

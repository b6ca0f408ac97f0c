"""Half precision as it is, on a CPU: nothing may optimise its rounding away.

ONNX Runtime's CPU session removes a cast to half whose result is cast back, and computes most operators on
halves in float32. A file then answers as if nothing had been rounded. `kept` prevents that.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from export import half_graph
from export.element_types import element_types
from export.graph import Arrays
from export.half_choice import LARGEST

# A tensor that comes this near to the largest half stays float32: other inputs may be larger than ours.
MARGIN = 8


def kept(model: Any) -> Any:
    """Return a model, which is changed, whose every half is really rounded when a CPU runs it.

    Behind each half come two maxima, each of one value alone. ONNX Runtime has that operator for halves, and
    keeps it. It would run a single one between other operators in float32, and then round nothing.
    """
    types = element_types(model)
    outputs = {output.name for output in model.graph.output}
    nodes = []
    for node in model.graph.node:
        nodes.append(node)
        for place, name in enumerate(node.output):
            if types.get(name) == TensorProto.FLOAT16 and name not in outputs:
                node.output[place] = f"{name}_raw"
                nodes.append(helper.make_node("Max", [f"{name}_raw"], [f"{name}_once"]))
                nodes.append(helper.make_node("Max", [f"{name}_once"], [name]))
    _replace(model, nodes)
    return model


@contextmanager
def session(path: Path, model: Any) -> Iterator[Any]:
    """Open a changed model of a file in ONNX Runtime, once. External weights are those of the file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False
    # In the order of the file: what measures a tensor might run last, and keep it in memory until then.
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    changed = path.with_name(f"changed-{path.name}")
    data = changed.with_name(f"{changed.name}.data")
    try:
        # Weights that were read may be more than one protobuf message holds. Others stay where they are.
        onnx.save_model(model, str(changed), save_as_external_data=True, location=data.name)
        yield onnxruntime.InferenceSession(str(changed), options, providers=["CPUExecutionProvider"])
    finally:
        changed.unlink(missing_ok=True)
        data.unlink(missing_ok=True)


def too_large(path: Path, kept_out: Sequence[str], cases: Sequence[Arrays]) -> list[str]:
    """Return the tensors of a float32 file that become halves and, in these cases, are near the largest half.

    The scores of an attention behind its mask are not among them: what a mask adds is bounded.
    """
    # Weights are read, because those that are constants decide what is in half.
    converted = half_graph.converted(onnx.load(str(path)), kept_out, is_rounded=False)
    halves = {name + half_graph.SUFFIX: name for name in converted.halves}
    sizes = _largest(path, converted.model, list(halves), cases)
    # Written so that NaN is too large.
    return [halves[name] for name, size in sizes.items() if not size < LARGEST / MARGIN]


def first_not_finite(path: Path, cases: Sequence[Arrays]) -> str | None:
    """Return the name of the first half of a half-precision file that is not finite in one of the cases."""
    model = kept(onnx.load(str(path), load_external_data=False))
    types = element_types(model)
    written = [name for node in model.graph.node for name in node.output]
    steps = ("_raw", "_once")
    halves = [name for name in written if types.get(name) == TensorProto.FLOAT16 and not name.endswith(steps)]
    sizes = _largest(path, model, halves, cases)
    wrong = (name for name, size in sizes.items() if not np.isfinite(size))
    return next((name.removesuffix(half_graph.SUFFIX) for name in wrong), None)


def _largest(path: Path, model: Any, names: Sequence[str], cases: Sequence[Arrays]) -> dict[str, float]:
    """Return the largest magnitude of each of these tensors in all cases."""
    nodes, wanted = [], set(names)
    for node in model.graph.node:
        nodes.append(node)
        for name in wanted.intersection(node.output):
            full, size = f"{name}_full", f"{name}_size"
            nodes.append(helper.make_node("Cast", [name], [full], to=TensorProto.FLOAT))
            nodes.append(helper.make_node("Abs", [full], [size]))
            nodes.append(helper.make_node("ReduceMax", [size], [f"{name}_largest"], keepdims=0))
    for name in names:
        model.graph.output.append(helper.make_tensor_value_info(f"{name}_largest", TensorProto.FLOAT, []))
    _replace(model, nodes)
    found = np.zeros(len(names))
    with session(path, model) as opened:
        for case in cases:
            found = np.maximum(found, opened.run([f"{name}_largest" for name in names], case))
    return dict(zip(names, found.tolist(), strict=True))


def _replace(model: Any, nodes: list[Any]) -> None:
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    # ONNX Runtime would hold the tensors to what stands here of their types.
    del model.graph.value_info[:]

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, parser

from export import casts
from export.demo.serving import REPOSITORY

MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
toy (uint8[batch, height, width, 3] image, bool[batch] wanted)
=> (float[batch, 3, height, width] planes, int64[4] sizes, float[batch, height, width, 3] chosen)
<int64[3] reversed = {2, 1, 0}>
{
  bgr = Gather <axis = 3> (image, reversed)
  turned = Transpose <perm = [0, 3, 1, 2]> (bgr)
  planes = Cast <to = 1> (turned)
  sizes = Shape (image)
  any = ReduceMax <keepdims = 0> (numbers)
  numbers = Cast <to = 1> (wanted)
  is_any = Cast <to = 9> (any)
  chosen = If (is_any) <
    then_branch = yes () => (float[batch, height, width, 3] a) { a = Cast <to = 1> (image) },
    else_branch = no () => (float[batch, height, width, 3] b) { c = Identity (image) b = Cast <to = 1> (c) }
  >
}
"""


def model() -> onnx.ModelProto:
    toy = parser.parse_model(MODEL)
    # The parser takes nodes as they come; a graph wants them in order.
    nodes = {node.output[0]: node for node in toy.graph.node}
    order = ["bgr", "turned", "planes", "sizes", "numbers", "any", "is_any", "chosen"]
    del toy.graph.node[:]
    toy.graph.node.extend(nodes[name] for name in order)
    return toy


def run(toy: onnx.ModelProto, inputs: dict[str, np.ndarray[Any, Any]]) -> list[Any]:
    session = onnxruntime.InferenceSession(toy.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))


@pytest.mark.parametrize("wanted", [True, False])
def test_bytes_go_into_a_cast_alone_and_answers_stay(wanted: bool) -> None:
    toy = model()
    inputs = {
        "image": np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8),
        "wanted": np.array([wanted, False]),
    }
    before = run(toy, inputs)
    casts.first(toy)
    onnx.checker.check_model(toy, full_check=True)
    assert [node.op_type for node in casts.readers(toy.graph, "image")] == ["Cast"]
    for one, other in zip(before, run(toy, inputs), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_graph_that_casts_first_stays_as_it_is() -> None:
    toy = model()
    casts.first(toy)
    before = toy.SerializeToString()
    casts.first(toy)
    assert toy.SerializeToString() == before


def test_every_exported_graph_casts_its_bytes_first(tiny_repository: Path) -> None:
    """TensorRT's parser refuses all others."""
    with_bytes = set()
    for repository in (tiny_repository, REPOSITORY):
        for path in repository.glob("*/1/model.onnx"):
            graph = onnx.load(str(path), load_external_data=False).graph
            for value in graph.input:
                if value.type.tensor_type.elem_type == TensorProto.UINT8:
                    readers = casts.readers(graph, value.name)
                    assert {node.op_type for node in readers} == {"Cast"}, path
                    with_bytes.add(path.parts[-3])
    assert len(with_bytes) >= 7

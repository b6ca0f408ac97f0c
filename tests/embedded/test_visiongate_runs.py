"""`backends/onnxruntime/visiongate_runs.py`, with the CPU in the place of the GPU."""

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from gateway.embedded.environment import _BACKEND_FOLDER


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(_BACKEND_FOLDER))
    yield importlib.import_module("visiongate_runs")
    del sys.modules["visiongate_runs"]


def session(batch: int | None = None, width: str | int = 3) -> onnxruntime.InferenceSession:
    """y = 2x, and the largest of each row as a half. batch: the size of a graph."""
    shape = ["batch", width]
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["x", "x"], ["y"]),
            helper.make_node("ReduceMax", ["x"], ["top"], axes=[1]),
            helper.make_node("Cast", ["top"], ["largest"], to=TensorProto.FLOAT16),
        ],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, shape),
            helper.make_tensor_value_info("largest", TensorProto.FLOAT16, ["batch", 1]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    if batch is not None:
        options.add_free_dimension_override_by_name("batch", batch)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def rows(count: int, width: int = 3, first: int = 0) -> Any:
    return np.arange(first, first + count * width, dtype=np.float32).reshape(count, width)


def test_bound_runs_answer_as_plain_ones(runs: ModuleType) -> None:
    plain = session(width="n")
    bound = runs.BoundRuns(plain, "cpu", 0)
    for x in (rows(2), rows(5, 4), rows(6)[::2], np.asfortranarray(rows(3))):
        answers = bound.run(["largest", "y"], {"x": x})
        for answer, expected in zip(answers, plain.run(["largest", "y"], {"x": x}), strict=True):
            assert answer.dtype == expected.dtype
            np.testing.assert_array_equal(answer, expected)
    assert len(bound.run(["largest"], {"x": rows(1)})) == 1


def test_a_bad_request_is_known_by_the_kind_of_its_error(runs: ModuleType) -> None:
    with pytest.raises(Exception, match="Unexpected input data type") as caught:
        runs.BoundRuns(session(), "cpu", 0).run(["y"], {"x": np.zeros((1, 3), np.int32)})
    assert type(caught.value).__name__ == "InvalidArgument"


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_a_batch_is_filled_up_to_the_size_of_a_graph(runs: ModuleType, count: int) -> None:
    graphs = runs.GraphRuns(session(), "cpu", 0, {4: session(4), 2: session(2)})
    # The second run reads and writes the memory of the first.
    answers = {first: graphs.run(["y", "largest"], {"x": rows(count, first=first)}) for first in (9, 1)}
    for first, (y, largest) in answers.items():
        np.testing.assert_array_equal(y, 2 * rows(count, first=first))
        np.testing.assert_array_equal(largest, rows(count, first=first)[:, 2:].astype(np.float16))
    # The smallest graph that is large enough has the last batch, and zeros behind it.
    filled = {size: graph._outputs["y"].numpy() for size, graph in graphs._graphs.items()}
    if count <= 4:
        expected = np.concatenate([2 * rows(count, first=1), np.zeros((count % 2, 3), np.float32)])
        np.testing.assert_array_equal(filled[count + count % 2], expected)


def test_graphs_need_shapes_that_are_fixed_but_for_the_batch(runs: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"'cuda_graphs' needs fixed .* 'x' has \[4, 'n'\]"):
        runs.GraphRuns(session(width="n"), "cpu", 0, {4: session(4, width="n")})

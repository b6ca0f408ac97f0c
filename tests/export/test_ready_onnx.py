from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import parser

from export import ready_onnx
from export.errors import ExportError

OLD = """
<ir_version: 6, opset_import: ["" : 11]>
old (float[1, 3, 4] input) => (float[1, 12, 1] cells, float[1, 3, 4] twice)
<int64[3] target = {1, -1, 1}>
{
  middle = Relu (input)
  cells = Reshape (middle, target)
  twice = Add (middle, middle)
}
"""
BEFORE = f"""
before (uint8[batch, 3, 4] bytes) => (float[batch, 3, 4] {ready_onnx.PREFIX}input)
<float ten = {{10}}>
{{
  middle = Cast <to = 1> (bytes)
  {ready_onnx.PREFIX}input = Sub (middle, ten)
}}
"""
AFTER = """
after (float[batch, 12, 1] cells) => (float[batch, 12, 1] result)
{
  result = Neg (cells)
}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    onnx.save(parser.parse_model(OLD), str(tmp_path / "old.onnx"))
    return tmp_path / "old.onnx"


def test_an_old_file_gets_our_opset(path: Path) -> None:
    model = ready_onnx.read(path)
    assert [entry.version for entry in model.opset_import] == [ready_onnx.OPSET]
    assert model.ir_version == ready_onnx.IR_VERSION
    assert ready_onnx.shapes(model.graph.input) == {"input": [1, 3, 4]}
    assert ready_onnx.shapes(model.graph.output) == {"cells": [1, 12, 1], "twice": [1, 3, 4]}


def run(model: onnx.ModelProto, path: Path, batch: int) -> dict[str, np.ndarray]:
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    inputs = {"bytes": np.arange(batch * 12, dtype=np.uint8).reshape(batch, 3, 4)}
    return dict(zip(names, session.run(names, inputs), strict=True))


def test_wraps_both_ends_and_frees_the_batch(path: Path, tmp_path: Path) -> None:
    model = ready_onnx.read(path)
    ready_onnx.free_batch(model)
    answer = run(ready_onnx.wrap(model, BEFORE, AFTER), tmp_path / "new.onnx", 5)
    assert answer.keys() == {"result"}
    expected = -np.maximum(np.arange(60) - 10.0, 0).reshape(5, 12, 1)
    np.testing.assert_array_equal(answer["result"], expected)


def test_without_a_second_graph_the_outputs_stay(path: Path, tmp_path: Path) -> None:
    answer = run(ready_onnx.wrap(ready_onnx.read(path), BEFORE), tmp_path / "new.onnx", 1)
    assert answer.keys() == {"cells", "twice"}
    np.testing.assert_array_equal(answer["twice"].ravel(), 2 * answer["cells"].ravel())


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"There is no file .*/nothing.onnx"):
        ready_onnx.read(tmp_path / "nothing.onnx")
    (tmp_path / "garbage.onnx").write_bytes(b"\xff" * 100)
    with pytest.raises(ExportError, match=r"garbage\.onnx is not a valid ONNX file"):
        ready_onnx.read(tmp_path / "garbage.onnx")

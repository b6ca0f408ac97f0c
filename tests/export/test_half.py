from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper, parser

from export import half

MODEL = """
<ir_version: 9, opset_import: ["" : 17]>
agraph (float[N, 8] x) => (float[N, 8] y)
{
    a = MatMul(x, w)
    b = MatMul(a, w)
    c = Sin(b)
    d = MatMul(c, v)
    y = Add(d, v_row)
}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    model = parser.parse_model(MODEL)
    for node, name in zip(model.graph.node, ("first", "second", "sin", "kept/out", "add"), strict=True):
        node.name = name
    random = np.random.default_rng(0)
    for name, shape in (("w", (8, 8)), ("v", (8, 8)), ("v_row", (8,))):
        model.graph.initializer.append(
            numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name)
        )
    onnx.save(model, str(tmp_path / "model.onnx"))
    return tmp_path / "model.onnx"


def run(model: onnx.ModelProto, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def test_products_alone_are_in_half(path: Path) -> None:
    model = half.products(path, kept_out=["kept/"])
    types = {weight.name: weight.data_type for weight in model.graph.initializer}
    float16, float32 = TensorProto.FLOAT16, TensorProto.FLOAT
    assert types == {"w_half": float16, "v": float32, "v_row": float32}
    x = np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)
    exact, rounded = run(onnx.load(str(path)), x), run(model, x)
    assert rounded.dtype == np.float32
    assert 0 < np.abs(rounded - exact).max() < 0.1


def test_everything_in_half_keeps_inputs_and_outputs(path: Path) -> None:
    model = half.everything(path)
    assert {weight.data_type for weight in model.graph.initializer} == {TensorProto.FLOAT16}
    x = np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)
    assert 0 < np.abs(run(model, x) - run(onnx.load(str(path)), x)).max() < 0.2


def test_weights_alone_are_halves_in_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(half, "MIN_STORED_HALF", 64)
    original = onnx.load(str(path))
    model = half.weights(path)
    types = {weight.name: weight.data_type for weight in model.graph.initializer}
    float16, float32 = TensorProto.FLOAT16, TensorProto.FLOAT
    assert types == {"w_half": float16, "v_half": float16, "v_row": float32}
    # What is computed is what float32 makes of the rounded weights, to the last bit.
    for weight in original.graph.initializer[:2]:
        rounded = numpy_helper.to_array(weight).astype(np.float16).astype(np.float32)
        weight.CopyFrom(numpy_helper.from_array(rounded, weight.name))
    x = np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)
    np.testing.assert_array_equal(run(model, x), run(original, x))


def test_what_a_half_cannot_hold_is_its_largest(path: Path) -> None:
    model = onnx.load(str(path))
    weight = next(w for w in model.graph.initializer if w.name == "v")
    weight.CopyFrom(numpy_helper.from_array(np.full((8, 8), 1e9, np.float32), "v"))
    onnx.save(model, str(path))
    [large] = [w for w in half.products(path, []).graph.initializer if w.name == "v_half"]
    assert (numpy_helper.to_array(large) == 65504).all()

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper, parser

from export import half

HEAD = '<ir_version: 9, opset_import: ["" : 17, "com.microsoft" : 1]>'
MODEL = """
agraph (float[N, 32] x) => (float[N, 32] y)
{
    a = MatMul(x, w)
    b = Relu(a)
    c = MatMul(b, w)
    d = Sin(c)
    e = MatMul(d, v)
    y = Add(e, row)
}
"""
ATTENTION = """
agraph (float[N, 8, 32] x, float[N, 8, 8] mask) => (float[N, 8, 32] y)
{
    q = MatMul(x, w)
    k = MatMul(x, v)
    turned = Transpose<perm = [0, 2, 1]>(k)
    scores = MatMul(q, turned)
    masked = Add(scores, mask)
    weights = Softmax(masked)
    seen = MatMul(weights, q)
    head = MatMul(seen, v)
    chances = Softmax(head)
    y = Mul(chances, chances)
}
"""
FUSED = """
agraph (float[N, 8, 32] x) => (float[N, 8, 32] y)
{
    q = MatMul(x, w)
    a = com.microsoft.MultiHeadAttention<num_heads = 2>(q, q, q)
    b = Relu(a)
    y = MatMul(b, v)
}
"""
STEM = """
agraph (float[N, 3, 8, 8] x) => (float[N, 32, 8, 8] y)
{
    a = Conv(x, colours)
    b = Relu(a)
    c = Conv<group = 32>(b, depthwise)
    d = Relu(c)
    e = Conv(d, pointwise)
    f = Conv<group = 32>(e, depthwise)
    y = Sin(f)
}
"""
Save = Callable[[str], Path]
Array = np.ndarray[Any, Any]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(text: str) -> Path:
        model = parser.parse_model(f"{HEAD}{text}")
        for node in model.graph.node:
            node.name = f"layer/{node.output[0]}"
        random = np.random.default_rng(0)
        shapes = {"w": (32, 32), "v": (32, 32), "row": (32,)}
        filters = {"colours": (32, 3, 1, 1), "depthwise": (32, 1, 1, 1), "pointwise": (32, 32, 1, 1)}
        for name, shape in (shapes | filters).items():
            values = random.normal(size=shape, scale=0.2).astype(np.float32)
            if any(name in node.input for node in model.graph.node):
                model.graph.initializer.append(numpy_helper.from_array(values, name))
        onnx.save(model, str(tmp_path / "model.onnx"))
        return tmp_path / "model.onnx"

    return write


def run(model: onnx.ModelProto, **inputs: Array) -> Array:
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, inputs)[0])


def values(*shape: int) -> Array:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def in_half(model: onnx.ModelProto) -> set[str]:
    """What the nodes that compute in half were called."""
    return {
        node.name.removeprefix("layer/")
        for node in model.graph.node
        if node.op_type != "Cast" and any(name.endswith("_half") for name in node.output)
    }


def test_products_and_what_follows_them_are_in_half(save: Save) -> None:
    path = save(MODEL)
    model = half.computed(path)
    assert in_half(model) == {"a", "b", "c", "e", "y"}
    types = {weight.name: weight.data_type for weight in model.graph.initializer}
    assert types == dict.fromkeys(["w_half", "v_half", "row_half"], TensorProto.FLOAT16)
    # One cast for the input, one on each side of the sine, and one for the output.
    assert sum(node.op_type == "Cast" for node in model.graph.node) == 4
    exact, rounded = run(onnx.load(str(path)), x=values(3, 32)), run(model, x=values(3, 32))
    assert rounded.dtype == np.float32
    assert 0 < np.abs(rounded - exact).max() < 0.01


def test_what_is_kept_out_stays_float32(save: Save) -> None:
    model = half.computed(save(MODEL), kept_out=["layer/e"])
    assert in_half(model) == {"a", "b", "c"}
    assert {w.name for w in model.graph.initializer} == {"w_half", "v", "row"}
    # PyTorch's newer exporter has the modules' names in notes.
    path = save(MODEL)
    noted = onnx.load(str(path))
    noted.graph.node[0].metadata_props.add(key="namespace", value=": Model/box.head: Linear")
    onnx.save(noted, str(path))
    assert in_half(half.computed(path, kept_out=["box.head"])) == {"c", "e", "y"}


def test_what_a_half_might_not_hold_stays_float32(save: Save) -> None:
    assert in_half(half.computed(save(MODEL), too_large=["c"])) == {"a", "b", "e", "y"}
    assert in_half(half.computed(save(ATTENTION), too_large=["scores"])) == {"q", "k", "turned"}


def test_an_attention_is_in_half_as_a_whole(save: Save) -> None:
    model = half.computed(save(ATTENTION))
    # The second softmax is of no attention: no product follows. So its scores are exact.
    assert in_half(model) == {"q", "k", "turned", "scores", "masked", "weights", "seen"}


@pytest.mark.parametrize("hidden", [np.finfo(np.float32).min, -1e9, -100.0])
def test_a_mask_hides_the_same_and_gives_no_nan(save: Save, hidden: float) -> None:
    path = save(ATTENTION)
    mask = np.where(np.tri(8)[None], 0, hidden).astype(np.float32)
    mask[0, 5] = hidden
    inputs = {"x": values(1, 8, 32), "mask": mask}
    exact, rounded = run(onnx.load(str(path)), **inputs), run(half.computed(path), **inputs)
    assert np.isfinite(rounded).all()
    # Of the fifth row nothing is left to see, so that its answer means nothing.
    np.testing.assert_allclose(np.delete(rounded, 5, 1), np.delete(exact, 5, 1), atol=2e-3)


def test_the_stem_of_a_mobile_network_stays_float32(save: Save) -> None:
    assert in_half(half.computed(save(STEM))) == {"e", "f"}
    # Without a depthwise convolution behind it, that of the colours is as any other.
    without = STEM.replace("Conv<group = 32>(b, depthwise)", "Conv(b, pointwise)")
    assert {"a", "c"} <= in_half(half.computed(save(without)))


def test_attention_as_one_operator_is_in_half(save: Save) -> None:
    path = save(FUSED)
    model = half.computed(path)
    assert in_half(model) == {"q", "a", "b", "y"}
    x = values(2, 8, 32)
    np.testing.assert_allclose(run(model, x=x), run(onnx.load(str(path)), x=x), atol=5e-3)


def test_the_graph_that_crashes_onnx_runtime_is_not_written(save: Save) -> None:
    """A cast to half, a transpose and a product with weights: 1.32 dies of it as it loads the file."""
    signature = "agraph (float[8, N, 32] x) => (float[N, 8, 32] y)"
    path = save(f"{signature} {{ t = Transpose<perm = [1, 0, 2]>(x) y = MatMul(t, w) }}")
    assert run(half.computed(path), x=values(8, 2, 32)).shape == (2, 8, 32)


def test_weights_alone_are_halves_in_the_file(save: Save) -> None:
    path = save(MODEL)
    original = onnx.load(str(path))
    model = half.weights(path)
    types = {weight.name: weight.data_type for weight in model.graph.initializer}
    float16, float32 = TensorProto.FLOAT16, TensorProto.FLOAT
    assert types == {"w_half": float16, "v_half": float16, "row": float32}
    # What is computed is what float32 makes of the rounded weights, to the last bit.
    for weight in original.graph.initializer[:2]:
        rounded = numpy_helper.to_array(weight).astype(np.float16).astype(np.float32)
        weight.CopyFrom(numpy_helper.from_array(rounded, weight.name))
    np.testing.assert_array_equal(run(model, x=values(3, 32)), run(original, x=values(3, 32)))


def test_what_a_half_cannot_hold_is_its_largest(save: Save) -> None:
    path = save(MODEL)
    model = onnx.load(str(path))
    weight = next(w for w in model.graph.initializer if w.name == "v")
    weight.CopyFrom(numpy_helper.from_array(np.full((32, 32), 1e9, np.float32), "v"))
    onnx.save(model, str(path))
    [large] = [w for w in half.computed(path).graph.initializer if w.name == "v_half"]
    assert (numpy_helper.to_array(large) == 65504).all()

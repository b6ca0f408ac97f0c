import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from export import half, rounding
from export.errors import ExportError
from export.graph import Arrays, Export, Graph
from export.half import Precision
from export.onnx_file import place
from export.parity import difference, run

MODEL = """
<ir_version: 9, opset_import: ["" : 17]>
agraph (float[batch, 32] x) => (float[batch, 32] y)
{
    a = MatMul(x, w)
    b = Relu(a)
    y = MatMul(b, v)
}
"""
CONFIG = """
backend: "onnxruntime"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 32 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 32 ] } ]
"""
X = np.random.default_rng(1).uniform(-1, 1, (4, 32)).astype(np.float32)


def scaled(scale: float) -> onnx.ModelProto:
    """A model whose `a` and `b` are about as large as this, but not its answer."""
    model = parser.parse_model(MODEL)
    random = np.random.default_rng(0)
    for name, size in (("w", scale), ("v", 1 / scale)):
        # Weights that are halves already, so that only what is computed is rounded.
        weight = random.normal(size=(32, 32), scale=0.2).astype(np.float16).astype(np.float32) * size
        model.graph.initializer.append(numpy_helper.from_array(weight.astype(np.float32), name))
    return model


def saved(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save(model, str(path))
    return path


def answers(path: Path, model: Any) -> np.ndarray[Any, Any]:
    with rounding.session(path, model) as session:
        return run(session, {"x": X})["y"]


def test_onnx_runtime_alone_hides_rounding(tmp_path: Path) -> None:
    path = saved(scaled(1), tmp_path / "model.onnx")
    exact, hidden = answers(path, onnx.load(str(path))), answers(path, half.computed(path))
    honest = answers(path, rounding.kept(half.computed(path)))
    assert difference(hidden, exact) < 2e-6
    assert 1e-4 < difference(honest, exact) < 1e-2
    # NumPy rounds to the same.
    w, v = (numpy_helper.to_array(weight).astype(np.float16) for weight in scaled(1).graph.initializer)
    x = X.astype(np.float16).astype(np.float32)
    a = np.maximum((x @ w.astype(np.float32)).astype(np.float16), 0).astype(np.float32)
    expected = (a @ v.astype(np.float32)).astype(np.float16)
    assert difference(honest, expected.astype(np.float32)) < 2e-3
    assert list(tmp_path.iterdir()) == [path]


def test_an_overflow_is_found_and_named(tmp_path: Path) -> None:
    path = saved(scaled(2.0**18), tmp_path / "float.onnx")
    model = half.computed(path)
    # Scaled weights are clipped, so that the product alone is too large.
    halved = saved(model, tmp_path / "half.onnx")
    case = {"x": X * 16}
    assert rounding.first_not_finite(halved, [case]) == "a"
    with rounding.session(halved, rounding.kept(onnx.load(str(halved)))) as session:
        assert not np.isfinite(run(session, case)["y"]).all()


def test_tensors_near_the_largest_half_are_found(tmp_path: Path) -> None:
    path = saved(scaled(2.0**14), tmp_path / "model.onnx")
    assert rounding.too_large(path, (), [{"x": X / 64}]) == []
    assert rounding.too_large(path, (), [{"x": X / 64}, {"x": X}]) == ["a", "b"]


def graph(model: onnx.ModelProto, scale: float = 1) -> Graph:
    def reference(inputs: Arrays, _outputs: Arrays) -> Arrays:
        w, v = (numpy_helper.to_array(weight) for weight in model.graph.initializer)
        return {"y": np.maximum(inputs["x"] @ w, 0) @ v}

    return Graph(
        model="toy",
        module=model,
        inputs={"x": X[:2]},
        outputs={"y": ("batch", 32)},
        dynamic={"x": {0: "batch"}},
        cases=[{"x": X[:1] * scale}, {"x": X[:3] * scale}],
        reference=reference,
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "config.pbtxt").write_text(CONFIG)
    return tmp_path


def test_what_is_too_large_is_exported_in_float32(repository: Path) -> None:
    [placed] = place(Export([graph(scaled(2.0**14))]), repository, precision=Precision.fp16)
    assert placed.kept == ["a", "b"]
    assert placed.error < 1e-2
    [placed] = place(Export([graph(scaled(1))]), repository, precision=Precision.fp16)
    assert not placed.kept
    assert 1e-4 < placed.error < 1e-2


def test_an_overflow_that_the_cases_do_not_foresee_is_one_sentence(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if float32 had stayed well below: halves may still add up to more.
    monkeypatch.setattr(rounding, "MARGIN", 1e-9)
    large = graph(scaled(2.0**14), scale=64)
    before = sorted(repository.rglob("*"))
    with pytest.raises(ExportError, match=r"toy: a is more than half precision can hold; export it with"):
        place(Export([large]), repository, precision=Precision.fp16)
    assert sorted(repository.rglob("*")) == before


# Prints how many megabytes the probe takes for a chain of tensors of 16 MB each.
CHAIN = """
import resource, sys
from pathlib import Path
import numpy as np, onnx
from onnx import helper, numpy_helper
from export import rounding
names = ["x", *(f"a{i}" for i in range(30)), "y"]
nodes = [helper.make_node("MatMul", [before, "w"], [after]) for before, after in zip(names, names[1:])]
x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 64]) for name in "xy")
weight = numpy_helper.from_array(np.eye(64, dtype=np.float32), "w")
model = helper.make_model(
    helper.make_graph(nodes, "chain", [x], [y], [weight]),
    opset_imports=[helper.make_opsetid("", 17)], ir_version=9,
)
path = Path(sys.argv[1]) / "model.onnx"
onnx.save(model, str(path))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert rounding.too_large(path, [], [{"x": np.ones((62_500, 64), np.float32)}]) == []
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_the_probe_keeps_few_tensors_in_memory(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHAIN, str(tmp_path)]
    taken = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    # All of the chain would be 480.
    assert int(taken) < 200

"""Files of int8: what is quantised in them, and what the exporter refuses."""

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper, parser
from typer.testing import CliRunner

from export import clip, int8
from export.__main__ import app
from export.errors import ExportError
from export.families import FAMILIES
from export.graph import Export
from export.half import Precision
from export.measures import Gate, Measure
from export.onnx_file import place
from export.weights import Options

# The second product's input comes from an operator whose result ONNX's own inference does not know.
MODEL = """
<ir_version: 9, opset_import: ["" : 17, "com.microsoft" : 1]>
agraph (float[N, 4, 16] x) => (float[N, 4, 16] y)
{
    a = MatMul(x, w)
    b = com.microsoft.MultiHeadAttention<num_heads: int = 2>(a, a, a)
    c = MatMul(b, v)
    c_turned = Transpose<perm: ints = [0, 2, 1]>(c)
    d = MatMul(c, c_turned)
    y = MatMul(d, c)
}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    model = parser.parse_model(MODEL)
    random = np.random.default_rng(0)
    for name in ("w", "v"):
        weight = random.normal(size=(16, 16)).astype(np.float32) * np.logspace(-2, 0, 16, dtype=np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, name))
    onnx.save(model, str(tmp_path / "model.onnx"))
    return tmp_path / "model.onnx"


def run(model: Any, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def test_all_products_with_weights_and_no_others_multiply_bytes(path: Path) -> None:
    before = path.read_bytes()
    model = int8.converted(path)
    operators = Counter(node.op_type for node in model.graph.node)
    assert operators["MatMulInteger"] == 2
    assert operators["MatMul"] == 2
    # Bytes, of 7 bits: two products of them fit into 16 bits.
    weights = [numpy_helper.to_array(w) for w in model.graph.initializer if w.name.endswith("_quantized")]
    assert [weight.dtype for weight in weights] == [np.int8] * 2
    assert all(60 < np.abs(weight.astype(int)).max() <= 64 for weight in weights)
    x = np.random.default_rng(1).normal(size=(3, 4, 16)).astype(np.float32)
    exact, rounded = run(onnx.load(str(path)), x), run(model, x)
    # With one scale for all, nothing would be left of the smallest columns.
    errors, sizes = (np.abs(values).max((0, 1)) for values in (rounded - exact, exact))
    assert 0 < (errors / sizes).max() < 0.25
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]
    assert path.read_bytes() == before


@pytest.mark.parametrize("tower", ["clip_image", pytest.param("clip_text", marks=pytest.mark.long)])
def test_clip_is_exported_and_measured(tmp_path: Path, tower: str) -> None:
    export = clip.prepare(Options(weights="demo"))
    graphs = [graph for graph in export.graphs if graph.model == tower]
    [placed] = place(Export(graphs), tmp_path, precision=Precision.int8)
    cosine, swap = (float(measured.split()[-1]) for measured in placed.measured)
    assert cosine > 0.999
    assert swap < 0.03
    model = onnx.load(str(placed.path))
    assert model.ir_version <= 10
    operators = Counter(node.op_type for node in model.graph.node)
    assert operators["MatMulInteger"] >= 4
    assert not operators["MatMul"]


def test_what_loses_too_much_fails(tmp_path: Path) -> None:
    [graph, _] = clip.prepare(Options(weights="random", size="tiny")).graphs
    gate = Gate(graph.cases, [Measure("likeness", lambda *_: 0.98, 0.99)])
    with pytest.raises(
        ExportError, match=r"clip_image differs from PyTorch: likeness 0.98, and at least 0.99"
    ):
        place(Export([replace(graph, int8_gate=lambda: gate)]), tmp_path, precision=Precision.int8)
    assert list(tmp_path.iterdir()) == []


def test_the_log_of_the_process_is_left_alone(path: Path) -> None:
    code = (
        "import logging, pathlib, sys; from export import int8; int8.converted(pathlib.Path(sys.argv[1])); "
        "assert logging.root.handlers == [] and logging.root.level == logging.WARNING"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_all_graphs_of_a_family_that_can_be_int8_are_held_to_something() -> None:
    for family in FAMILIES.values():
        if family.can_be_int8:
            export = family.prepare(Options(weights="random", size="tiny"))
            assert all(graph.int8_gate is not None for graph in export.graphs)


def test_only_clip_and_only_for_cpus(tmp_path: Path) -> None:
    def answer(*arguments: str) -> str:
        command = [*arguments, "--size", "tiny", "--precision", "int8", "--out", str(tmp_path / "models")]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 1
        return " ".join(result.output.split())

    refused = "doctr, sam cannot be int8: only clip measures what that does to its answers;"
    assert refused in answer("doctr", "clip", "sam")
    refused = "--precision int8 is for CPUs: leave out --engine tensorrt."
    assert refused in answer("clip", "--engine", "tensorrt")
    assert not (tmp_path / "models").exists()

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bench.gpu import host, macs, plan, read, run, smoke, timing
from bench.gpu.__main__ import main
from bench.gpu.pack_graphs import pack_graph
from bench.gpu.run_graphs import difference
from export.graph import Graph


def model(nodes: list[onnx.NodeProto], inputs: dict[str, tuple[Any, ...]], **weights: Any) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize(
    ("node", "shapes", "expected"),
    [
        (helper.make_node("MatMul", ["a", "b"], ["y"]), [(2, 3, 5, 7), (7, 4)], 2 * 3 * 5 * 7 * 4),
        (helper.make_node("Gemm", ["a", "b"], ["y"], transB=1), [(3, 7), (4, 7)], 3 * 7 * 4),
        (helper.make_node("Gemm", ["a", "b"], ["y"], transA=1), [(7, 3), (7, 4)], 3 * 7 * 4),
        # Strides halve the places, groups halve what each of them looks at.
        (
            helper.make_node("Conv", ["a", "b"], ["y"], strides=[2, 2], group=2, pads=[1, 1, 1, 1]),
            [(2, 4, 8, 8), (6, 2, 3, 3)],
            2 * 6 * 4 * 4 * (2 * 3 * 3),
        ),
        (
            helper.make_node("ConvTranspose", ["a", "b"], ["y"], strides=[2, 2]),
            [(1, 4, 5, 5), (4, 3, 2, 2)],
            5 * 5 * 4 * 3 * 2 * 2,
        ),
        (
            helper.make_node("Einsum", ["a", "b"], ["y"], equation="bhwc,hkc->bhwk"),
            [(2, 3, 4, 5), (3, 6, 5)],
            2 * 3 * 4 * 5 * 6,
        ),
        (helper.make_node("Relu", ["a"], ["y"]), [(9, 9)], 0),
    ],
)
def test_the_multiplications_of_a_graph_are_counted(
    node: onnx.NodeProto, shapes: list[tuple[int, ...]], expected: int
) -> None:
    node.name = "node"
    weights = {"b": np.ones(shapes[1])} if len(shapes) > 1 else {}
    # The sizes of its input are known only to the run.
    graph = model([node], {"a": tuple(f"d{i}" for i in range(len(shapes[0])))}, **weights)
    assert macs.count(graph, {"a": np.ones(shapes[0], np.float32)}) == expected


def test_the_plan_begins_with_what_matters_and_has_everything_once() -> None:
    passes = plan.passes(plan.MODELS)
    assert [each[0].way for each in passes] == list(plan.WAYS)
    flat = [measurement for each in passes for measurement in each]
    assert len(flat) == len(set(flat))
    assert {each.model for each in flat if each.way == "fast-fp16"} == set(plan.MODELS)
    assert plan.passes(["gaze"], ["fast-fp16"]) == [
        [plan.Measurement("fast-fp16", "gaze", batch) for batch in (1, 8, 32)]
    ]


def test_the_smoke_test_passes_here_and_tells_a_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert dict(smoke.check("cpu")) == dict.fromkeys(smoke.operators(), "")
    monkeypatch.setitem(smoke._EXPECTED, "MatMul", lambda a, b: 2 * (a @ b))
    assert "differs from NumPy" in dict(smoke.check("cpu"))["MatMul"]


def test_the_steps_of_an_lstm_are_counted() -> None:
    node = helper.make_node(
        "LSTM", ["a", "w", "r"], ["y"], name="node", hidden_size=3, direction="bidirectional"
    )
    weights = {"w": np.ones((2, 12, 5)), "r": np.ones((2, 12, 3))}
    graph = model([node], {"a": ("steps", "batch", "width")}, **weights)
    # Seven steps of four items, both ways: four gates, which are 3 wide, of an input of 5 and a state of 3.
    assert macs.count(graph, {"a": np.ones((7, 4, 5), np.float32)}) == 7 * 4 * 2 * (4 * 3) * (5 + 3)


def test_everything_that_a_host_lacks_is_said_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "_GRAPHS", ("numpy", "no_such_package"))
    monkeypatch.setattr(host, "_is_library", lambda name: name == "libcuda.so.1")
    results = tmp_path / "results.jsonl"
    assert main(["run", "--graphs", str(tmp_path), "--results", str(results)]) == 1
    said = capsys.readouterr().err
    assert "has no no_such_package." in said
    assert "libcublas.so.13" in said
    assert not results.exists()
    lacks = host.lacks("cpu", with_torch=False, with_server=True)
    assert [lack.is_fatal for lack in lacks] == [True]


def test_a_host_without_cuda_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    wrong = dict(smoke.check("cuda"))
    assert all("no CUDA" in why for why in wrong.values())


def test_differences_are_shares_of_the_whole_and_nan_never_passes() -> None:
    assert difference(np.array([3.0, 4.0]), np.array([3.0, 4.0])) == 0
    assert difference(np.array([3.0, 4.5]), np.array([3.0, 4.0])) == pytest.approx(0.1)
    masked = np.array([-np.inf, 1.0])
    assert difference(masked, masked) == 0
    assert difference(np.array([np.nan, 1.0]), np.ones(2)) == np.inf


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a toy that goes by the name of gaze, with inputs and weights large enough to be drawn."""
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("Cast", ["face"], ["pixels"], to=TensorProto.FLOAT, name="cast"),
        helper.make_node("Mul", ["pixels", "scale"], ["scaled"], name="scale_pixels"),
        helper.make_node("Reshape", ["scaled", "flat"], ["row"], name="reshape"),
        helper.make_node("MatMul", ["row", "weight"], ["yaw_pitch"], name="product"),
    ]
    weight = random.normal(0, 0.02, (64 * 64 * 3, 2)).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("face", TensorProto.UINT8, ("batch", 64, 64, 3))],
        [helper.make_tensor_value_info("yaw_pitch", TensorProto.FLOAT, ("batch", 2))],
        [
            numpy_helper.from_array(np.array(1 / 255, np.float32), "scale"),
            numpy_helper.from_array(np.array([0, 64 * 64 * 3]), "flat"),
            numpy_helper.from_array(weight, "weight"),
        ],
    )
    face = np.zeros((1, 64, 64, 3), np.uint8)
    toy = Graph(
        model="gaze",
        module=helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10),
        inputs={"face": face.repeat(2, 0)},
        outputs={"yaw_pitch": ("batch", 2)},
        dynamic={"face": {0: "batch"}},
        cases=[{"face": face}],
        reference=lambda inputs, outputs: outputs,
        warmup=[{"face": face}],
    )
    folder = tmp_path_factory.mktemp("graphs")
    pack_graph(toy, folder / "gaze", {"size": "tiny", "config": {}, "variant": "toy"})
    return folder


def test_a_run_measures_notes_what_it_could_not_and_is_read(
    graphs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "tests:.")
    results = tmp_path / "results.jsonl"
    (graphs / "gaze" / "plain-fp16.onnx").write_bytes(b"no model")
    arguments = ["run", "--graphs", str(graphs), "--results", str(results), "--device", "cpu"]
    ways = "plain-fp32,fast-fp16,plain-fp16"
    assert main([*arguments, "--models", "gaze", "--seconds", "0.01", "--ways", ways]) == 0
    entries = timing.read(results)
    measured = {(entry["way"], entry["batch"]): entry for entry in entries if entry["kind"] == "graph"}
    assert set(measured) == {("plain-fp32", 1), *(("fast-fp16", batch) for batch in (1, 8, 32))}
    assert all(0 < entry["difference"] < 1e-2 for (way, _), entry in measured.items() if way == "fast-fp16")
    (facts,) = (entry for entry in entries if entry["kind"] == "facts")
    assert facts["macs"] == 64 * 64 * 3 * 2

    # Half a line is what a killed run leaves.
    with results.open("a") as file:
        file.write('{"kind": "gra')
    capsys.readouterr()
    assert main(["read", str(results)]) == 0
    text = capsys.readouterr().out
    assert "| `gaze` | 32 |" in text
    assert "plain graph, FP16: `gaze` 1, `gaze` 8, `gaze` 32: " in text


def test_a_time_limit_leaves_a_reason_for_everything(graphs: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    measurements = plan.passes(["gaze"], ["fast-fp16"])[0]
    timing.add(results, kind="facts", model="gaze", macs=1)
    run._one_pass(measurements, graphs, results, "cpu", 0.01, 0.0, lambda _: None)
    skipped = [entry for entry in timing.read(results) if entry["kind"] == "skipped"]
    assert [entry["batch"] for entry in skipped] == [1, 8, 32]
    assert "the time was over" in read.report(results)


def test_ratios_and_shares_are_of_the_right_rows(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    entries: list[dict[str, Any]] = [
        {"kind": "peak", "tflops": {"fp16": 100.0}},
        {"kind": "facts", "model": "gaze", "macs": 10**10},
        *(
            {"kind": "graph", "way": way, "model": "gaze", "batch": 8, "ms": ms, "finite": True}
            for way, ms in (("fast-fp16", 4.0), ("torch-fp16", 8.0), ("plain-fp16", 6.0))
        ),
        {
            **{"kind": "served", "task": "gaze", "models": ["gaze"], "callers": 8, "errors": 0},
            **{"items_a_second": 1000.0, "p50_ms": 1.0, "p99_ms": 2.0},
        },
    ]
    results.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    text = read.report(results)
    # 2,000 a second of 20 GFLOP are 40 of 100 TFLOP/s; the server gives half of them.
    assert "| `gaze` | 8 | 4.00 | 2,000.0 | 40.0 | 2.00 | - | 1.50 | - | - |" in text
    assert "| gaze | 8 | 1,000.0 | 1.0 | 2.0 | 0.50 | 0 |" in text


@pytest.mark.long
def test_every_model_runs_in_every_way_at_toy_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.gpu import baselines, pack_graphs
    from bench.gpu.run_torch import peak

    monkeypatch.setenv("PYTHONPATH", "tests:.")
    assert set(baselines.MODELS) == set(plan.MODELS)
    assert peak("cpu", 0.01).keys() == {"fp16", "tf32"}
    pack_graphs.pack(plan.MODELS, "tiny", tmp_path / "graphs", print)
    results = tmp_path / "results.jsonl"
    # PyTorch's compiler needs another one, of C++.
    ways = ",".join(way for way in plan.WAYS if way != "torch-compile")
    arguments = ["run", "--graphs", str(tmp_path / "graphs"), "--results", str(results), "--device", "cpu"]
    assert main([*arguments, "--seconds", "0.01", "--limit-s", "900", "--ways", ways]) == 0
    entries = timing.read(results)
    assert [entry for entry in entries if entry["kind"] in {"failed", "skipped"}] == []
    assert all(entry["finite"] for entry in entries if entry["kind"] == "graph")
    # Drawn weights are alike in all files. Halves differ from float32 by their rounding alone.
    differences = {entry["model"]: entry["difference"] for entry in entries if "difference" in entry}
    assert set(differences) == set(plan.MODELS)
    assert max(differences.values()) < 5e-2, differences

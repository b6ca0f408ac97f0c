"""Engines: built by TensorRT for RTX on this CPU, and what stands in the repository for each choice."""

import json
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from filelock import FileLock
from onnx import helper
from typer.testing import CliRunner

from export import engine_check, engine_host, engine_plan, engines, fingerprint, onnx_writing, triton_config
from export.__main__ import app
from export.engine_host import Gpu, TensorRT
from export.errors import ExportError
from export.families import FAMILIES
from export.graph import Graph
from export.half import Precision

from . import rtx
from .conftest import TINY

CAPABILITY = "8.9"
# Those whose engines are built in a moment. The others take most of the time: see the long test.
QUICK = {"clip_text": "clip", "face_detection": "face_detection"}


@pytest.fixture(scope="session")
def rtx_folder(shared_folder: Path) -> Path:
    folder = shared_folder / "tensorrt_rtx"
    with FileLock(shared_folder / "tensorrt_rtx.lock"):
        rtx.install(folder)
    return folder


@pytest.fixture
def library(rtx_folder: Path) -> Iterator[TensorRT]:
    with rtx.importable(rtx_folder):
        yield engine_host.tensorrt()


def export(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [*map(str, arguments), "--size", "tiny"])
    return result.exit_code, result.stdout, result.stderr


def config_of(path: Path) -> Any:
    return triton_config.parse(path.read_text(encoding="utf-8"), path)


def largest_batch(graph: Graph) -> int:
    configured: int = config_of(triton_config.template(graph.model)).max_batch_size
    return min(configured, graph.ranges.get("batch", (1, 1, configured))[2])


def build(graph: Graph, precision: Precision, library: TensorRT, folder: Path) -> None:
    path = folder / graph.model / engines.PLAIN
    path.parent.mkdir()
    onnx_writing.write(graph, path, precision=precision, fast=False)
    shapes = engine_plan.profile(graph, largest_batch(graph))
    plan = engine_plan.build(library, path, shapes, graph.model, CAPABILITY)
    assert plan.nbytes > 100_000, graph.model


@pytest.mark.parametrize("model", QUICK)
def test_engines_of_quick_graphs_in_half_precision(model: str, library: TensorRT, tmp_path: Path) -> None:
    (graph,) = (graph for graph in FAMILIES[QUICK[model]].prepare(TINY).graphs if graph.model == model)
    build(graph, Precision.fp16, library, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("precision", [Precision.fp32, Precision.fp16])
@pytest.mark.parametrize("family", FAMILIES)
def test_engines_of_all_toy_graphs(
    family: str, precision: Precision, library: TensorRT, tmp_path: Path
) -> None:
    for graph in FAMILIES[family].prepare(TINY).graphs:
        build(graph, precision, library, tmp_path)


def test_an_engine_has_a_record_and_is_built_once(library: TensorRT, tmp_path: Path) -> None:
    command = ("gaze", "--out", tmp_path, "--engine", "tensorrt", "--compute-capability", CAPABILITY)
    code, output, errors = export(*command)
    assert (code, errors) == (0, "")
    assert f"gaze: build the engine with tensorrt_rtx {library.version}" in output
    assert "Triton has no backend for engines of tensorrt_rtx" in output
    version = tmp_path / "gaze" / "1"
    assert {path.name for path in version.iterdir()} == {"model.onnx", "model.plan", "model.plan.json"}
    assert not (tmp_path / "gaze" / "configs").exists()
    record = engine_plan.read_record(version / "model.plan.json")
    assert (record.package, record.compute_capability, record.gpu) == ("tensorrt_rtx", CAPABILITY, None)
    assert record.profile == {"face": [[1, 64, 64, 3], [16, 64, 64, 3], [16, 64, 64, 3]]}
    built = (version / "model.plan").stat().st_ino
    if engine_host.gpu() is None:
        assert list(engine_check.problems(tmp_path)) == [
            (
                version / "model.plan",
                "needs a GPU, and this host has none (or no driver): check on the host that runs it",
            )
        ]
        code, output, errors = export("--check-engines", "--out", tmp_path)
        assert (code, output) == (1, "")
        assert f"{version / 'model.plan'} needs a GPU" in errors

    code, output, _ = export(*command)
    assert (code, "build the engine" in output) == (0, False)
    assert (version / "model.plan").stat().st_ino == built
    code, output, _ = export(*command, "--seed", "1")
    assert (code, "build the engine" in output) == (0, True)


def test_the_accelerator_gets_the_plain_graph_and_a_config(tmp_path: Path) -> None:
    assert export("face_detection", "--out", tmp_path)[0] == 0
    model = tmp_path / "face_detection"
    before = config_of(model / "config.pbtxt")
    (model / "configs").mkdir()
    (model / "configs" / "mine.pbtxt").write_text((model / "config.pbtxt").read_text())
    cache = "/var/cache/engines"
    code, output, errors = export(
        "face_detection", "--out", tmp_path, "--engine", "onnxruntime-tensorrt", "--engine-cache", cache
    )
    assert (code, errors) == (0, "")
    assert "Triton with --model-config-name=onnxruntime-tensorrt builds the engines" in output
    assert f"keeps them in {cache}" in output
    assert {path.name for path in (model / "1").iterdir()} == {"model.onnx", "plain.onnx"}
    assert {path.name for path in (model / "configs").iterdir()} == {
        "mine.pbtxt",
        "onnxruntime-tensorrt.pbtxt",
    }

    default = config_of(model / "config.pbtxt")
    variant = config_of(model / "configs" / "onnxruntime-tensorrt.pbtxt")
    (accelerator,) = variant.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "tensorrt"
    settings = dict(accelerator.parameters)
    assert settings["trt_profile_min_shapes"] == "image:1x160x160x3"
    assert settings["trt_profile_opt_shapes"] == "image:8x160x160x3"
    assert settings["trt_profile_max_shapes"] == "image:8x320x320x3"
    assert settings["trt_engine_cache_path"] == cache
    digest = engine_plan.sha256(model / "1" / "plain.onnx")
    assert settings["trt_engine_cache_prefix"] == f"face_detection-{digest[:16]}"
    # TensorRT would round whatever it likes to half.
    assert "precision_mode" not in settings
    assert variant.default_model_filename == "plain.onnx"
    variant.ClearField("optimization")
    variant.ClearField("default_model_filename")
    assert variant == default
    # The same weights are the same model, whatever runs them.
    assert default.parameters["export"] == before.parameters["export"]

    assert export("face_detection", "--out", tmp_path)[0] == 0
    assert [path.name for path in (model / "configs").iterdir()] == ["mine.pbtxt"]
    assert [path.name for path in (model / "1").iterdir()] == ["model.onnx"]


def test_tensorrts_config_is_the_models_own_with_another_backend(tiny_repository: Path) -> None:
    for path in tiny_repository.glob("*/config.pbtxt"):
        config = config_of(path)
        parsed = config_of_text(triton_config.for_plan(config, "model.plan"))
        assert (parsed.backend, parsed.default_model_filename) == ("tensorrt", "model.plan")
        parsed.backend = config.backend
        parsed.ClearField("default_model_filename")
        assert parsed == config


def config_of_text(text: str) -> Any:
    return triton_config.parse(text, Path("config.pbtxt"))


def test_a_fingerprint_is_of_weights_and_stands_in_all_configs(tmp_path: Path) -> None:
    model = tmp_path / "toy"
    (model / "1").mkdir(parents=True)
    (model / "configs").mkdir()
    (model / "1" / "model.onnx").write_text("weights")
    for path in (model / "config.pbtxt", model / "configs" / "tensorrt.pbtxt"):
        path.write_text("max_batch_size: 8\n")
    before = fingerprint.of([model])
    for name in ("model.plan", "model.plan.json", "plain.onnx", "plain.onnx.data"):
        (model / "1" / name).write_text("anything")
    fingerprint.write([model])
    for path in (model / "config.pbtxt", model / "configs" / "tensorrt.pbtxt"):
        assert config_of(path).parameters["export"].string_value == before


@pytest.fixture(scope="module")
def graphs() -> dict[str, Graph]:
    exports = [FAMILIES[family].prepare(TINY) for family in FAMILIES]
    return {graph.model: graph for made in exports for graph in made.graphs}


def test_profiles_hold_what_triton_warms_up_with(graphs: dict[str, Graph]) -> None:
    for graph in graphs.values():
        shapes = engine_plan.profile(graph, largest_batch(graph))
        for request in graph.warmup:
            assert request.keys() == shapes.keys()
            for name, value in request.items():
                least, _, largest = shapes[name]
                assert all(np.less_equal(least, value.shape)), (graph.model, name)
                assert all(np.less_equal(value.shape, largest)), (graph.model, name)


def test_profiles_hold_what_the_gateway_sends(graphs: dict[str, Graph], tiny_repository: Path) -> None:
    """Canvases, text lengths, batches of prompts: each config says what its requests look like."""
    parameters = config_of(tiny_repository / "grounding_dino" / "config.pbtxt").parameters
    least, usual, largest = engine_plan.profile(graphs["grounding_dino"], 4)["image"]
    for canvas in parameters["canvases"].string_value.split(","):
        size = [int(side) for side in canvas.split("x")]
        assert all(np.less_equal(least[1:3], size))
        assert all(np.less_equal(size, largest[1:3]))
    assert usual == [4, 128, 192, 3]
    mask = engine_plan.profile(graphs["grounding_dino"], 4)["text_self_attention_mask"]
    assert mask == [[1, 16, 16], [4, 16, 16], [4, 256, 256]]
    points = engine_plan.profile(graphs["sam_decoder"], 4)["points"]
    assert points == [[1, 1, 1, 2], [4, 32, 2, 2], [4, 32, 64, 2]]
    # Sizes that do not change are the same in all three.
    assert engine_plan.profile(graphs["sam_encoder"], 2)["image"] == [[n, 128, 128, 3] for n in (1, 2, 2)]


def test_an_axis_without_a_range_is_told() -> None:
    (graph,) = FAMILIES["face_detection"].prepare(TINY).graphs
    with pytest.raises(ExportError, match="no range for the axis height of image"):
        engine_plan.profile(replace(graph, ranges={}), 4)


def test_a_graph_that_tensorrt_does_not_know(library: TensorRT, tmp_path: Path) -> None:
    node = helper.make_node("NoSuchOperator", ["x"], ["y"], domain="some.one")
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 2])
    result = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 2])
    model = helper.make_model(
        helper.make_graph([node], "toy", [value], [result]),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("some.one", 1)],
        ir_version=8,
    )
    onnx.save(model, str(tmp_path / "toy.onnx"))
    with pytest.raises(ExportError, match=r"^TensorRT does not take toy: .*NoSuchOperator.*\.$"):
        engine_plan.build(library, tmp_path / "toy.onnx", {"x": [[1, 2]] * 3}, "toy", CAPABILITY)


def test_a_signal_ends_a_build(library: TensorRT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []

    def monitor(trt: Any, received: Sequence[int]) -> Any:
        real = make(trt, received)

        class Interrupted(type(real)):  # type: ignore[misc]
            def step_complete(self, name: str, step: int) -> bool:
                if not steps:
                    os.kill(os.getpid(), signal.SIGTERM)
                steps.append(name)
                return bool(super().step_complete(name, step))

        return Interrupted()

    make = engine_plan._monitor
    monkeypatch.setattr(engine_plan, "_monitor", monitor)
    before = signal.getsignal(signal.SIGTERM)
    (graph,) = FAMILIES["face_detection"].prepare(TINY).graphs
    with pytest.raises(SystemExit, match=f"^{128 + signal.SIGTERM}$"):
        build(graph, Precision.fp32, library, tmp_path)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "tensorrt"], "this host has none (or no driver): name its kind with"),
        (["--engine", "tensorrt", "--compute-capability", "9.0"], "of compute capability 9.0; it knows 7.5,"),
        (["--compute-capability", "8.9"], "--compute-capability belongs to --engine tensorrt."),
        (["--engine", "tensorrt", "--precision", "int8"], "gaze cannot be int8: only clip measures"),
        (["--engine-cache", "/engines"], "--engine-cache belongs to --engine onnxruntime-tensorrt."),
        (["--engine", "onnxruntime-tensorrt", "--engine-cache", "here"], "give the folder's whole path on"),
        (["--check-engines"], "There are no engines in "),
    ],
)
@pytest.mark.usefixtures("library")
def test_mistakes_are_one_sentence_before_any_work(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    if engine_host.gpu() is not None:
        pytest.skip("this host has a GPU")
    code, output, errors = export("gaze", "--out", tmp_path / "new", *arguments)
    assert (code, output) == (1, "")
    assert message in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.fixture
def without_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("without_packages")
def test_without_a_package(tmp_path: Path) -> None:
    code, output, errors = export("gaze", "--out", tmp_path / "new", "--engine", "tensorrt")
    assert (code, output) == (1, "")
    assert "neither of the packages tensorrt and tensorrt_rtx is installed" in errors
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("without_packages")
@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        # What PyPI has under the name of TensorRT.
        ({}, "tensorrt does not load: "),
        ({"__version__": "10.9.0.34", "Builder": 1, "OnnxParser": 1}, "TensorRT 10.9.0.34 is too old"),
    ],
)
def test_packages_that_will_not_do(
    attributes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("tensorrt")
    vars(module).update(attributes)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    with pytest.raises(ExportError, match=message):
        engine_host.tensorrt()


RECORD = engine_plan.Record("tensorrt", "10.13.2", "8.9", "NVIDIA L4", "fp16", "00", {})
L4 = Gpu("NVIDIA L4", "8.9")


@pytest.mark.parametrize(
    ("record", "version", "gpu", "message"),
    [
        (RECORD, "10.13.2", L4, None),
        (replace(RECORD, gpu=None), "10.13.2", L4, None),
        (RECORD, "10.14.0", L4, "was built with tensorrt 10.13.2, and this host has tensorrt 10.14.0"),
        (RECORD, "10.13.2", None, "needs a GPU"),
        (RECORD, "10.13.2", Gpu("NVIDIA L40S", "8.9"), "was built for NVIDIA L4 .*has NVIDIA L40S"),
        (replace(RECORD, gpu=None), "10.13.2", Gpu("NVIDIA A10", "8.6"), "any GPU .*8.9.*NVIDIA A10"),
    ],
)
def test_whether_an_engine_runs_here(
    record: engine_plan.Record, version: str, gpu: Gpu | None, message: str | None
) -> None:
    said = engine_check.problem(record, TensorRT("tensorrt", version, None), gpu)
    assert re.search(message or "^None$", str(said))


def test_a_record_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "model.plan.json"
    for text in ("", "[]", json.dumps({"package": "tensorrt"})):
        path.write_text(text)
        with pytest.raises(ExportError, match=r"model\.plan\.json is no record of an engine"):
            engine_plan.read_record(path)

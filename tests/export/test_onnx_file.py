from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from export import fingerprint
from export.errors import ExportError
from export.graph import Arrays, Export, Graph, beside
from export.onnx_file import place
from export.parity import difference

CONFIG = """# Tuned by hand.
backend: "onnxruntime"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ -1, 64 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ -1, 64 ] } ]
parameters { key: "family" value { string_value: "toy" } }
"""


class Toy(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = self.linear(x).tanh()
        return y, y.sum(-1)


def ones(*shape: int) -> Arrays:
    return {"x": np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)}


@pytest.fixture
def graph() -> Graph:
    torch.manual_seed(0)
    module = Toy()

    def reference(inputs: Arrays, _outputs: Arrays) -> Arrays:
        with torch.no_grad():
            y, total = module(torch.from_numpy(inputs["x"]))
        return {"y": y.numpy(), "total": total.numpy()}

    return Graph(
        model="toy",
        module=module,
        inputs=ones(2, 3, 64),
        outputs={"y": ("batch", "rows", 64)},
        dynamic={"x": {0: "batch", 1: "rows"}},
        cases=[ones(1, 1, 64), ones(3, 5, 64)],
        reference=reference,
        parameters={"family": "toy"},
        probes={"total": ("batch", "rows")},
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository" / "toy"
    folder.mkdir(parents=True)
    (folder / "config.pbtxt").write_text(CONFIG)
    return folder.parent


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("external", [True, False])
def test_places_a_file_that_triton_reads(
    graph: Graph, repository: Path, dynamo: bool, external: bool
) -> None:
    export = Export([replace(graph, dynamo=dynamo)], {"toy/words.json": "{}"})
    [placed] = place(export, repository, external_data=external)

    names = {"toy/1/model.onnx", "toy/config.pbtxt", "toy/words.json"}
    assert files(repository).keys() == (names | {"toy/1/model.onnx.data"} if external else names)
    assert sorted(path.name for path in repository.iterdir()) == ["toy"]
    assert placed.path == repository / "toy" / "1" / "model.onnx"
    assert placed.error < 1e-5
    assert not placed.config_changed
    # Only the fingerprint is added.
    mark = fingerprint.of([repository / "toy"])
    entry = f'parameters {{ key: "export" value {{ string_value: "{mark}" }} }}\n'
    assert (repository / "toy" / "config.pbtxt").read_text() == CONFIG + entry

    model = onnx.load(str(placed.path), load_external_data=False)
    assert model.ir_version <= 10
    assert all(opset.version <= 20 for opset in model.opset_import)
    session = onnxruntime.InferenceSession(str(placed.path), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["y"]
    assert session.get_inputs()[0].shape == ["batch", "rows", 64]
    assert session.get_outputs()[0].shape == ["batch", "rows", 64]
    inputs = ones(7, 2, 64)
    assert difference(session.run(["y"], inputs)[0], graph.reference(inputs, {})["y"]) < 1e-5


def test_a_new_export_replaces_all_of_the_old(graph: Graph, repository: Path) -> None:
    place(Export([graph]), repository, external_data=True)
    place(Export([graph]), repository)
    assert files(repository).keys() == {"toy/1/model.onnx", "toy/config.pbtxt"}


@pytest.mark.parametrize("before", [True, False])
def test_a_difference_leaves_the_repository_as_it_was(graph: Graph, repository: Path, before: bool) -> None:
    if before:
        place(Export([graph]), repository)
    contents = files(repository)

    def wrong(inputs: Arrays, outputs: Arrays) -> Arrays:
        return {name: value + 0.01 for name, value in graph.reference(inputs, outputs).items()}

    second = replace(graph, reference=wrong)
    with pytest.raises(ExportError, match=r"toy differs from PyTorch: y by 1.\de-02"):
        place(Export([second], {"toy/words.json": "{}"}), repository)
    assert files(repository) == contents
    assert [path.name for path in repository.iterdir()] == ["toy"]


def test_a_model_without_a_template_is_refused(graph: Graph, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"no .*toy.pbtxt"):
        place(Export([graph]), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_agreement_on_a_constant_proves_nothing(graph: Graph, repository: Path) -> None:
    assert isinstance(graph.module, torch.nn.Module)
    with torch.no_grad():
        for parameter in graph.module.parameters():
            parameter.zero_()
    with pytest.raises(ExportError, match="y is the same whatever the input"):
        place(Export([graph]), repository)


class Baked(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = x.reshape(2, 3, 64) + torch.arange(64)
        return y, y.sum(-1)


def test_a_size_that_the_trace_baked_in_is_found(graph: Graph, repository: Path) -> None:
    with pytest.raises(ExportError, match=r"toy does not run on {'x': \(1, 1, 64\)}"):
        place(Export([replace(graph, module=Baked(), dynamo=False)]), repository)


def test_an_exporter_failure_is_one_sentence(graph: Graph, repository: Path) -> None:
    class Broken(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> None:
            raise ValueError("cannot be\ntraced")

    with pytest.raises(ExportError) as caught:
        place(Export([replace(graph, module=Broken(), dynamo=False)]), repository)
    assert str(caught.value) == "toy does not export: cannot be"


def test_too_new_an_opset_is_refused(graph: Graph, repository: Path) -> None:
    with pytest.raises(ExportError, match="opset 23"):
        place(Export([replace(graph, opset=23)]), repository)


@pytest.mark.parametrize(
    ("actual", "expected", "result"),
    [
        ([1.0, 2.0], [1.0, 4.0], 2.0),
        ([1.0, -np.inf], [1.0, -np.inf], 0.0),
        ([1.0, np.inf], [1.0, -np.inf], np.inf),
        ([np.nan, 1.0], [1.0, 1.0], np.inf),
        ([-np.inf], [-np.inf], 0.0),
        ([1.0], [1.0, 1.0], np.inf),
    ],
)
def test_difference(actual: list[float], expected: list[float], result: Any) -> None:
    assert difference(np.array(actual), np.array(expected)) == result


def test_a_variant_beside_the_default_has_its_name_and_leaves_the_default(
    graph: Graph, repository: Path
) -> None:
    default = files(repository)
    named = replace(graph, parameters={"family": "toy", "variant": "vit_h"})
    (repository / "toy-vit_h").mkdir()
    (repository / "toy-vit_h" / "config.pbtxt").write_text(CONFIG)
    place(beside(Export([named], {"toy/tokenizer.json": "{}"})), repository)
    written = files(repository)
    assert {"toy-vit_h/1/model.onnx", "toy-vit_h/tokenizer.json"} <= written.keys()
    assert b"vit_h" in written["toy-vit_h/config.pbtxt"]
    assert {name: data for name, data in written.items() if name.startswith("toy/")} == default

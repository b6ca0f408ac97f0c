from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from export import bert_tokenizer, grounding_dino, sam, triton_config
from export.errors import ExportError
from export.families.grounding_dino import VARIANTS
from export.families.sam import VARIANTS as SAM_VARIANTS
from export.graph import Graph
from export.weights import Options

ONNX_TYPES = {
    "bool": "tensor(bool)",
    "float32": "tensor(float)",
    "int32": "tensor(int32)",
    "int64": "tensor(int64)",
    "uint8": "tensor(uint8)",
}


@dataclass
class Tensor:
    name: str
    type: str
    shape: list[int | str]


class Session:
    """What ONNX Runtime would say of a graph's file, without exporting it."""

    def __init__(self, graph: Graph) -> None:
        self.inputs = [
            Tensor(
                name,
                ONNX_TYPES[example.dtype.name],
                [graph.dynamic[name].get(axis, size) for axis, size in enumerate(example.shape)],
            )
            for name, example in graph.inputs.items()
        ]
        self.outputs = [Tensor(name, "tensor(float)", list(shape)) for name, shape in graph.outputs.items()]

    def get_inputs(self) -> list[Tensor]:
        return self.inputs

    def get_outputs(self) -> list[Tensor]:
        return self.outputs


@pytest.fixture(scope="module")
def graphs() -> Iterator[dict[str, Graph]]:
    """Graphs of the default variants, true sizes but no weights."""
    from transformers import GroundingDinoForObjectDetection, SamModel

    with pytest.MonkeyPatch.context() as patch:
        with torch.device("meta"):
            dino = GroundingDinoForObjectDetection(VARIANTS["swin_t"].config())
            vit_b = SamModel(SAM_VARIANTS["vit_b"].config())
        tokenizer = bert_tokenizer.from_vocabulary(bert_tokenizer.own_vocabulary())
        patch.setattr(grounding_dino, "build", lambda options: (dino, tokenizer, "swin_t"))
        patch.setattr(sam, "build", lambda options: (vit_b, "vit_b"))
        exports = [grounding_dino.prepare(Options()), sam.prepare(Options())]
        yield {graph.model: graph for export in exports for graph in export.graphs}


MODELS = ["grounding_dino", "sam_encoder", "sam_decoder"]


@pytest.mark.parametrize("model", MODELS)
def test_templates_are_those_of_the_default_variants(
    graphs: dict[str, Graph], tmp_path: Path, model: str
) -> None:
    session = Session(graphs[model])
    text, changed = triton_config.for_graph(graphs[model], session, tmp_path)
    assert text == triton_config.template(model).read_text()
    assert not changed


@pytest.mark.parametrize("model", MODELS)
def test_templates_leave_the_device_to_triton(model: str) -> None:
    config = parse(triton_config.template(model).read_text())
    assert config.backend == "onnxruntime"
    assert config.max_batch_size > 1
    assert config.HasField("dynamic_batching")
    assert [(group.count, group.kind) for group in config.instance_group] == [(1, 0)]


def parse(text: str) -> Any:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_a_variant_gets_a_copy_with_its_sizes(graphs: dict[str, Graph], tmp_path: Path) -> None:
    graph = replace(graphs["sam_encoder"], parameters={"family": "sam", "variant": "vit_x"})
    session = Session(graph)
    session.outputs[0].shape = ["batch", 7, 64, 64]
    text, changed = triton_config.for_graph(graph, session, tmp_path)
    config = parse(text)
    assert not changed  # nothing was there
    assert list(config.output[0].dims) == [7, 64, 64]
    assert {name: value.string_value for name, value in config.parameters.items()} == graph.parameters


def test_the_repository_keeps_its_own_settings(graphs: dict[str, Graph], tmp_path: Path) -> None:
    graph = graphs["sam_decoder"]
    text = triton_config.template("sam_decoder").read_text()
    tuned = text.replace("max_batch_size: 16", "max_batch_size: 5")
    (tmp_path / "sam_decoder").mkdir()
    (tmp_path / "sam_decoder" / "config.pbtxt").write_text(tuned)
    assert triton_config.for_graph(graph, Session(graph), tmp_path) == (tuned, False)

    other = replace(graph, parameters={**graph.parameters, "variant": "vit_x"})
    text, changed = triton_config.for_graph(other, Session(other), tmp_path)
    assert changed
    assert parse(text).max_batch_size == 5
    assert parse(text).parameters["variant"].string_value == "vit_x"


def test_a_config_without_warm_up_gets_it_and_keeps_its_text(
    graphs: dict[str, Graph], tmp_path: Path
) -> None:
    graph = graphs["sam_encoder"]
    whole = triton_config.template("sam_encoder").read_text()
    start, end = whole.index("model_warmup {"), whole.index("# Read by the gateway.")
    older = whole[:start] + whole[end:]
    path = tmp_path / "sam_encoder" / "config.pbtxt"
    path.parent.mkdir()
    path.write_text(older)
    text, changed = triton_config.for_graph(graph, Session(graph), tmp_path)
    assert changed
    assert text.startswith(older)
    assert parse(text) == parse(whole)
    # An operator's own stays. Only its name tells.
    mine = whole.replace("visiongate-1", "mine").replace("1024, 1024, 3 ] zero", "512, 1024, 3 ] zero")
    path.write_text(mine)
    assert triton_config.for_graph(graph, Session(graph), tmp_path) == (mine, False)
    path.write_text(mine.replace('"mine"', '"visiongate-1"'))
    text, changed = triton_config.for_graph(graph, Session(graph), tmp_path)
    assert changed
    assert list(parse(text).model_warmup[0].inputs["image"].dims) == [1024, 1024, 3]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", "picture", r"inputs are \['image', 'valid_size'\], but the ONNX file has \['picture'"),
        ("type", "tensor(float)", r"input image is TYPE_UINT8, but tensor\(float\) in the ONNX file"),
        ("shape", ["batch", 1024, 1024], r"image has dims \[1024, 1024, 3\], but \[1024, 1024\]"),
    ],
)
def test_a_mismatch_fails(
    graphs: dict[str, Graph], tmp_path: Path, field: str, value: Any, message: str
) -> None:
    session = Session(graphs["sam_encoder"])
    setattr(session.inputs[0], field, value)
    with pytest.raises(ExportError, match=message):
        triton_config.for_graph(graphs["sam_encoder"], session, tmp_path)


@pytest.mark.parametrize(("text", "message"), [("input {", "does not parse"), ("", "no max_batch_size")])
def test_a_bad_config_is_named(graphs: dict[str, Graph], tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "sam_encoder").mkdir()
    (tmp_path / "sam_encoder" / "config.pbtxt").write_text(text)
    with pytest.raises(ExportError, match=message):
        triton_config.for_graph(graphs["sam_encoder"], Session(graphs["sam_encoder"]), tmp_path)

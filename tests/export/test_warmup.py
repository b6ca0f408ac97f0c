"""The warm-up of every family: what the gateway would send, in a form that Triton reads."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from export import triton_config, warmup
from export.graph import Arrays, Graph
from gateway.models.grounding_dino import GroundingDinoSpec

NUMPY = {"TYPE_BOOL": "bool", "TYPE_INT32": "int32", "TYPE_INT64": "int64"}


def config(folder: Path) -> Any:
    path = folder / "config.pbtxt"
    return triton_config.parse(path.read_text(encoding="utf-8"), path)


def values(folder: Path, message: Any, name: str) -> np.ndarray[Any, Any]:
    """An input of a warm-up as Triton makes it."""
    entry = message.inputs[name]
    data = (folder / "warmup" / entry.input_data_file).read_bytes()
    dtype = NUMPY[model_config_pb2.DataType.Name(entry.data_type)]
    return np.frombuffer(data, dtype).reshape(entry.dims)


def test_every_model_is_warmed_up_with_all_its_inputs(tiny_repository: Path) -> None:
    for folder in tiny_repository.iterdir():
        said = config(folder)
        inputs = {entry.name: entry for entry in said.input}
        files = set()
        assert said.model_warmup, folder.name
        for message in said.model_warmup:
            assert message.inputs.keys() == inputs.keys()
            for name, entry in message.inputs.items():
                assert entry.data_type == inputs[name].data_type
                dims = zip(entry.dims, inputs[name].dims, strict=True)
                assert all(wanted in (size, -1) for size, wanted in dims), (folder.name, name)
                if not entry.zero_data:
                    files.add(entry.input_data_file)
                    assert values(folder, message, name).any()
        made = {path.name for path in folder.glob("warmup/*")}
        assert made == files


def test_grounding_dino_is_warmed_up_as_the_gateway_asks_of_a_photo(tiny_repository: Path) -> None:
    folder = tiny_repository / "grounding_dino"
    said = config(folder)
    parameters = {name: value.string_value for name, value in said.parameters.items()}
    spec = GroundingDinoSpec.from_parameters(parameters, folder)
    canvas, size = spec.preprocess(np.zeros((480, 640, 3), np.uint8))
    [message] = said.model_warmup
    assert tuple(message.inputs["image"].dims) == canvas.shape
    assert tuple(values(folder, message, "valid_size")) == size
    text = spec.text.encode_caption("a red circle. the small dog.")
    for name in ("input_ids", "attention_mask", "position_ids", "text_self_attention_mask"):
        assert np.array_equal(values(folder, message, name), getattr(text, name)), name


def test_words_are_warmed_up_alone_and_in_the_smallest_preferred_batch(tiny_repository: Path) -> None:
    messages = config(tiny_repository / "doctr_recognition").model_warmup
    assert [message.batch_size for message in messages] == [1, 64]


@pytest.fixture
def graph() -> Graph:
    request: Arrays = {"image": np.zeros((1, 4, 4, 3), np.uint8), "size": np.array([[3, 4]], np.int32)}
    return Graph(
        model="toy",
        module=None,  # type: ignore[arg-type]
        inputs=request,
        outputs={},
        dynamic={},
        cases=[],
        reference=lambda inputs, outputs: {},
        warmup=[request],
    )


def test_an_operators_own_warm_up_and_its_files_stay(graph: Graph, tmp_path: Path) -> None:
    text = 'max_batch_size: 4 model_warmup { name: "mine" batch_size: 2 }'
    own = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert not warmup.is_ours(own)
    warmup.write_files(graph, own, tmp_path)
    assert list(tmp_path.iterdir()) == []
    own.model_warmup[0].name = warmup.messages(graph, own)[0].name
    assert warmup.is_ours(own)
    warmup.write_files(graph, own, tmp_path)
    assert [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()] == [
        np.array([3, 4], np.int32).tobytes()
    ]

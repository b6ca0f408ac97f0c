"""One real Triton for the whole session, serving small graphs made here."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
import tritonclient.grpc
from onnx import TensorProto, helper

from gateway.embedded import EmbeddedTriton

AddModel = Callable[..., Path]

TYPES = {
    "bool": TensorProto.BOOL,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "fp16": TensorProto.FLOAT16,
    "fp32": TensorProto.FLOAT,
}
# Long enough for requests sent together to be joined on a busy machine.
BATCHING = "dynamic_batching { max_queue_delay_microseconds: 300000 preferred_batch_size: [ 8 ] }"
ONE_INSTANCE = "instance_group [{ count: 1 }]"


@dataclass(frozen=True)
class Server:
    """The session's Triton, a client of it, and the lines of its log."""

    triton: EmbeddedTriton
    client: tritonclient.grpc.InferenceServerClient
    log: list[str]


def scale_and_max() -> onnx.ModelProto:
    """y = 2x and the largest of each row, with every dimension variable."""
    return _model(
        [
            helper.make_node("Add", ["x", "x"], ["y"]),
            helper.make_node("ReduceMax", ["x"], ["largest"], axes=[1], keepdims=0),
        ],
        {"x": (TensorProto.FLOAT, ["batch", "n"])},
        {"y": (TensorProto.FLOAT, ["batch", "n"]), "largest": (TensorProto.FLOAT, ["batch"])},
    )


def table_lookup() -> onnx.ModelProto:
    """row = table[index], which fails for an index that the table does not have."""
    table = helper.make_tensor("table", TensorProto.FLOAT, [4], [0.0, 10.0, 20.0, 30.0])
    return _model(
        [helper.make_node("Gather", ["table", "index"], ["row"])],
        {"index": (TensorProto.INT64, ["batch", 1])},
        {"row": (TensorProto.FLOAT, ["batch", 1])},
        [table],
    )


def identities() -> onnx.ModelProto:
    """An input and an output of each type."""
    return _model(
        [helper.make_node("Identity", [f"{name}_in"], [f"{name}_out"]) for name in TYPES],
        {f"{name}_in": (kind, ["batch", 2]) for name, kind in TYPES.items()},
        {f"{name}_out": (kind, ["batch", 2]) for name, kind in TYPES.items()},
    )


def fixed_sum() -> onnx.ModelProto:
    """x + offset without a batch dimension, and the sum of it as a true scalar."""
    offset = helper.make_tensor("offset", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])
    return _model(
        [
            helper.make_node("Add", ["x", "offset"], ["y"]),
            helper.make_node("ReduceSum", ["y"], ["total"], keepdims=0),
        ],
        {"x": (TensorProto.FLOAT, [3])},
        {"y": (TensorProto.FLOAT, [3]), "total": (TensorProto.FLOAT, [])},
        [offset],
    )


def _model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[str | int]]],
    outputs: dict[str, tuple[int, list[str | int]]],
    initializers: list[onnx.TensorProto] | None = None,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, kind, dims) for name, (kind, dims) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, dims) for name, (kind, dims) in outputs.items()],
        initializers or [],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def _add_model(
    repository: Path,
    name: str,
    model: onnx.ModelProto,
    config: str,
    *,
    version: int = 1,
    filename: str = "model.onnx",
    external_data: bool = False,
) -> Path:
    folder = repository / name / str(version)
    folder.mkdir(parents=True)
    onnx.save(
        model,
        folder / filename,
        save_as_external_data=external_data,
        location="weights.bin" if external_data else None,
        size_threshold=0,
    )
    (folder.parent / "config.pbtxt").write_text(f'backend: "onnxruntime"\n{config}\n')
    return folder / filename


@pytest.fixture(scope="session")
def add_model() -> AddModel:
    """Put an ONNX model and its configuration into a repository."""
    return _add_model


@pytest.fixture(scope="session")
def graphs() -> dict[str, onnx.ModelProto]:
    return {
        "scale_and_max": scale_and_max(),
        "table_lookup": table_lookup(),
        "identities": identities(),
        "fixed_sum": fixed_sum(),
    }


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, graphs: dict[str, onnx.ModelProto]) -> Iterator[Server]:
    # The space: Triton's Python backend cannot bear one.
    repository = tmp_path_factory.mktemp("model repository")
    x = "input [{ name: 'x' data_type: TYPE_FP32 dims: [ -1 ] %s }]"
    outputs = """
        output [
          { name: 'y' data_type: TYPE_FP32 dims: [ -1 ] },
          { name: 'largest' data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } }
        ]
        parameters { key: "visiongate.mean" value: { string_value: "0.48 0.46 0.41" } }
        parameters { key: "intra_op_thread_count" value: { string_value: "1" } }
    """
    scale = graphs["scale_and_max"]
    explicit = f"max_batch_size: 16 {x % ''} {outputs} {ONE_INSTANCE}"
    _add_model(repository, "scale", scale, f"{explicit} {BATCHING}")
    # Has the batcher join requests whose shapes differ.
    ragged = f"max_batch_size: 16 {x % 'allow_ragged_batch: true'} {outputs} {ONE_INSTANCE}"
    _add_model(repository, "scale_ragged", scale, f"{ragged} {BATCHING}")
    _add_model(
        repository,
        "lookup",
        graphs["table_lookup"],
        f"""
        max_batch_size: 16
        input [{{ name: 'index' data_type: TYPE_INT64 dims: [ 1 ] }}]
        output [{{ name: 'row' data_type: TYPE_FP32 dims: [ 1 ] }}]
        {ONE_INSTANCE} {BATCHING}
        """,
    )
    _add_model(repository, "identities", graphs["identities"], ONE_INSTANCE)
    _add_model(
        repository,
        "fixed",
        graphs["fixed_sum"],
        f'{ONE_INSTANCE} default_model_filename: "net.onnx"',
        version=3,
        filename="net.onnx",
        external_data=True,
    )
    _add_model(repository, "scale_completed", scale, "instance_group [{ count: 2 }] dynamic_batching { }")

    log: list[str] = []
    with EmbeddedTriton(repository, log=log.append) as triton:
        client = tritonclient.grpc.InferenceServerClient(triton.grpc_address)
        yield Server(triton, client, log)
        client.close()

"""`backends/onnxruntime/visiongate_sessions.py`: what runs on a GPU is told, not run."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tritonclient.grpc

from gateway.embedded import EmbeddedTriton, environment, runtime, server_log
from gateway.embedded.environment import FOR_GPU, ensure_environment, process_environment


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(environment._BACKEND_FOLDER))
    yield importlib.import_module("visiongate_sessions")
    del sys.modules["visiongate_sessions"]


def config(accelerator: str = "", **parameters: str) -> dict[str, Any]:
    """Return a configuration as Triton gives it to a backend."""
    accelerators = [{"name": accelerator, "parameters": {"use_tf32": "0"}}] if accelerator else []
    return {
        "name": "gaze",
        "max_batch_size": 8,
        "parameters": {key: {"string_value": value} for key, value in parameters.items()},
        "optimization": {"execution_accelerators": {"gpu_execution_accelerator": accelerators}},
    }


def test_options_of_cuda_are_named_as_by_the_native_backend(sessions: ModuleType) -> None:
    assert sessions.cuda_options({"name": "gaze", "max_batch_size": 0}, 1) == {"device_id": "1"}
    parameters = {
        "cudnn_conv_algo_search": "1",
        "arena_extend_strategy": "1",
        "gpu_mem_limit": "4294967296",
        "do_copy_in_default_stream": "0",
        "family": "gaze",
    }
    assert sessions.cuda_options(config("cuda", **parameters), 0) == {
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        "gpu_mem_limit": "4294967296",
        "do_copy_in_default_stream": "0",
        "use_tf32": "0",
        "device_id": "0",
    }
    assert sessions.graph_sizes(config(cuda_graphs="8 1")) == (1, 8)
    assert sessions.graph_sizes(config()) == ()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (config("tensorrt"), "'gaze' asks for the accelerator 'tensorrt', .*NVIDIA's container"),
        (config(cudnn_conv_algo_search="EXHAUSTIVE"), "must be a whole number, not 'EXHAUSTIVE'"),
        (config(arena_extend_strategy="2"), "must be a number from 0 to 1, not 2"),
        (config(cuda_graphs="1 16"), "'cuda_graphs' must be batch sizes from 1 to max_batch_size, .*'1 16'"),
        (config(cuda_graphs="all"), "'cuda_graphs' must be .*not 'all'"),
    ],
)
def test_options_that_are_wrong_are_named(sessions: ModuleType, wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(sessions.ModelError, match=says):
        _ = sessions.cuda_options(wrong, 0), sessions.graph_sizes(wrong)


def test_too_little_memory_is_one_sentence(sessions: ModuleType) -> None:
    """The first message is ONNX Runtime's own, of an arena that is limited in the same way on the CPU."""
    program = """
import numpy, onnxruntime
from onnx import TensorProto, helper
where = onnxruntime.OrtMemoryInfo(
    "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT)
limit = onnxruntime.OrtArenaCfg({"max_mem": 1 << 20})
onnxruntime.create_and_register_allocator(where, limit)
graph = helper.make_graph(
    [helper.make_node("Exp", ["x"], ["z"]), helper.make_node("Exp", ["z"], ["y"])], "graph",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
options = onnxruntime.SessionOptions()
options.add_session_config_entry("session.use_env_allocators", "1")
session = onnxruntime.InferenceSession(model.SerializeToString(), options)
try:
    session.run(None, {"x": numpy.ones(1 << 20, numpy.float32)})
except Exception as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    out_of_cuda = "CUDNN failure: out of memory ; GPU=0"
    for message in (done.stdout, out_of_cuda):
        said = sessions.explained(message, config(gpu_mem_limit=str(3 << 29)), 0)
        assert said.startswith("model 'gaze' needs more memory on GPU 0 than is free of the 1.5 GiB that"), (
            said
        )
    assert "free of it: allow more" in sessions.explained(out_of_cuda, config(), 0)
    assert sessions.explained(out_of_cuda, config(), None) == out_of_cuda
    assert sessions.explained("indices out of bounds", config(), 0) == "indices out of bounds"


def test_nodes_on_the_cpu_are_named(
    sessions: ModuleType, graphs: dict[str, onnx.ModelProto], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        graphs["fixed_sum"].SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    assert sessions.placement(session, 2) == (
        "0 of 2 nodes on GPU 2; on the CPU: 1 ReduceSum; on the CPU, probably arithmetic of shapes: 1 Add"
    )
    monkeypatch.setattr(sessions, "_CUDA", "CPUExecutionProvider")
    assert sessions.placement(session, 2) == "2 of 2 nodes on GPU 2"
    assert server_log.for_operator([f'I1124 01:50:21.1 67 model.py:9] "{sessions.MARK}gaze: all"']) == [
        "gaze: all"
    ]


@pytest.mark.long
def test_the_environment_for_gpus_runs_on_the_cpu_and_refuses_a_gpu_that_is_not_there(
    tmp_path: Path, add_model: Any, graphs: dict[str, onnx.ModelProto], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real packages, 2 GB of them."""
    path = add_model(tmp_path / "models", "fixed", graphs["fixed_sum"], "instance_group [{ count: 1 }]")
    place = ensure_environment(print, FOR_GPU)
    monkeypatch.setattr(runtime, "FOR_CPU", FOR_GPU)
    with EmbeddedTriton(tmp_path / "models") as triton:
        client = tritonclient.grpc.InferenceServerClient(triton.grpc_address)
        tensor = tritonclient.grpc.InferInput("x", [3], "FP32")
        tensor.set_data_from_numpy(np.ones(3, np.float32))
        np.testing.assert_array_equal(client.infer("fixed", [tensor]).as_numpy("y"), [2, 3, 4])
        client.close()
    program = (
        "import pathlib, sys; sys.path.append(sys.argv[1]); import visiongate_sessions as sessions\n"
        "config = {'name': 'fixed', 'max_batch_size': 0}\n"
        "try: sessions.open_session(pathlib.Path(sys.argv[2]), config, gpu=99)\n"
        "except sessions.ModelError as error: print(error)\n"
    )
    refused = subprocess.run(
        [place / "bin" / "python3", "-c", program, environment._BACKEND_FOLDER, path],
        env=process_environment(place),
        capture_output=True,
        text=True,
        check=True,
    )
    # Without a driver that is the only library which is missing.
    assert refused.stdout.startswith(
        (
            "model 'fixed' cannot run on GPU 99: CUDA does not load (libcuda.so.1",
            "model 'fixed' does not load on GPU 99",
        )
    )

"""Triton's "onnxruntime" backend on ONNX Runtime's Python package, for a Triton without the native backend.

Triton runs this file in separate processes and a separate environment: visiongate cannot be imported here.
The file completes, checks and refuses configurations as the native backend does, so that one model repository
loads in both.
"""

# The stub adds the classes in the annotations to pb_utils only after it has imported this file.
from __future__ import annotations

import json
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import triton_python_backend_utils as pb_utils

# Beside this file, in a folder that comes last on the path: names that no package has.
import visiongate_runs
import visiongate_sessions

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnxruntime

if int(np.__version__.split(".")[0]) >= 2:
    # The stub process would load, report READY and answer every request with empty tensors.
    raise RuntimeError(
        f"Triton's Python backend needs NumPy 1.x, not {np.__version__}: with that it returns empty tensors"
    )

_TRITON_TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
}
# Triton gives it to its native backends if the configuration names no max_batch_size.
_DEFAULT_MAX_BATCH_SIZE = 4

Config = dict[str, Any]


@dataclass(frozen=True)
class _TensorInfo:
    """An input or output as the ONNX file declares it; symbolic dimensions are -1."""

    name: str
    data_type: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Item:
    """A request: its place among those passed to `execute`, and its tensors, which are not copied."""

    index: int
    feed: dict[str, np.ndarray]
    outputs: frozenset[str]
    batch_size: int


class TritonPythonModel:
    """One instance of a model: one ONNX Runtime session."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config: pb_utils.ModelConfig) -> pb_utils.ModelConfig:
        """Fill in batching, inputs and outputs from the ONNX file if inputs or outputs are missing."""
        config = auto_complete_model_config.as_dict()
        if config["input"] and config["output"]:
            return auto_complete_model_config
        session = visiongate_sessions.open_session(
            _model_file(Path(pb_utils.get_model_dir()), config), config
        )
        inputs, outputs = _tensors(session.get_inputs()), _tensors(session.get_outputs())
        if config["max_batch_size"] == 0 and all(t.shape[:1] == (-1,) for t in (*inputs, *outputs)):
            auto_complete_model_config.set_max_batch_size(_DEFAULT_MAX_BATCH_SIZE)
        if config["max_batch_size"] > 1 and "sequence_batching" not in config:
            auto_complete_model_config.set_dynamic_batching()
        # Written directly: the methods for this do not support `reshape`.
        config["input"] = config["input"] or [_tensor_config(config, tensor) for tensor in inputs]
        config["output"] = config["output"] or [_tensor_config(config, tensor) for tensor in outputs]
        return auto_complete_model_config

    def initialize(self, args: dict[str, str]) -> None:
        """Open the session and refuse a configuration that the ONNX file does not fit."""
        config = json.loads(args["model_config"])
        gpu = int(args["model_instance_device_id"]) if args["model_instance_kind"] == "GPU" else None
        path = _model_file(Path(args["model_repository"], args["model_version"]), config)
        session = visiongate_sessions.open_session(path, config, gpu=gpu)
        inputs, outputs = _tensors(session.get_inputs()), _tensors(session.get_outputs())
        _check_config(config, inputs, outputs)
        self._config, self._gpu = config, gpu
        # The first requests are those of the configuration's warm-up.
        self._is_warm = not config.get("model_warmup")
        self._run_session = session.run if gpu is None else _runs_on_gpu(session, path, config, gpu)
        self._batching: bool = config["max_batch_size"] > 0
        self._input_names = [tensor.name for tensor in inputs]
        self._output_names = [tensor.name for tensor in outputs]
        # Triton's shapes have at least one dimension; a scalar in an ONNX file has none.
        self._scalars = {tensor.name for tensor in (*inputs, *outputs) if not tensor.shape}

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """Answer the requests. Those of equal shapes are answered in one run."""
        responses: list[pb_utils.InferenceResponse] = [None] * len(requests)
        groups: dict[Hashable, list[_Item]] = {}
        for index, request in enumerate(requests):
            if request.is_cancelled():
                responses[index] = _failure("the request was cancelled", pb_utils.TritonError.CANCELLED)
                continue
            feed = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            first = feed[self._input_names[0]]
            item = _Item(
                index=index,
                feed=feed,
                outputs=frozenset(request.requested_output_names()),
                batch_size=first.shape[0] if self._batching else 1,
            )
            shapes = tuple(feed[name].shape[1:] for name in self._input_names)
            groups.setdefault(shapes if self._batching else index, []).append(item)
        for group in groups.values():
            self._answer(group, responses)
        return responses

    def finalize(self) -> None:
        """Release the session when the model is unloaded."""
        del self._run_session

    def _answer(self, group: list[_Item], responses: list[pb_utils.InferenceResponse]) -> None:
        """Run the group as one batch, and put each request's answer in its place."""
        requested = frozenset[str]().union(*(item.outputs for item in group))
        names = [name for name in self._output_names if name in requested]
        try:
            values = dict(zip(names, self._run(names, group), strict=True))
        except Exception as error:
            if len(group) > 1:
                # The values of one request, such as an index out of range, must not make the others fail.
                for item in group:
                    self._answer([item], responses)
                return
            invalid = type(error).__name__ in ("InvalidArgument", "ValueError")
            code = pb_utils.TritonError.INVALID_ARG if invalid else pb_utils.TritonError.INTERNAL
            message = visiongate_sessions.explained(str(error), self._config, self._gpu)
            responses[group[0].index] = _failure(message, code)
            if not self._is_warm:
                # Triton says so too, but for the times that it crashes over a warm-up that fails.
                pb_utils.Logger.log_error(f"model '{self._config['name']}' failed to warm up: {message}")
            return
        self._is_warm = True
        start = 0
        for item in group:
            rows = slice(start, start + item.batch_size) if len(group) > 1 else slice(None)
            start += item.batch_size
            tensors = [pb_utils.Tensor(name, values[name][rows]) for name in names if name in item.outputs]
            responses[item.index] = pb_utils.InferenceResponse(output_tensors=tensors)

    def _run(self, names: list[str], group: list[_Item]) -> list[np.ndarray]:
        if len(group) > 1:
            feed = {name: np.concatenate([item.feed[name] for item in group]) for name in self._input_names}
        else:
            feed = {
                name: array.reshape(()) if name in self._scalars else array
                for name, array in group[0].feed.items()
            }
        values = self._run_session(names, feed)
        if self._batching:
            batch_size = sum(item.batch_size for item in group)
            for name, value in zip(names, values, strict=True):
                if value.shape[:1] != (batch_size,):
                    raise RuntimeError(f"output '{name}' has shape {value.shape} for a batch of {batch_size}")
        return [np.atleast_1d(value) for value in values]


def _runs_on_gpu(
    session: onnxruntime.InferenceSession, path: Path, config: Config, gpu: int
) -> Callable[[list[str], dict[str, np.ndarray]], list[np.ndarray]]:
    """Return what runs a session on a GPU, and log which of its nodes do not run there."""
    where = visiongate_sessions.placement(session, gpu)
    pb_utils.Logger.log_info(f"{visiongate_sessions.MARK}{config['name']}: {where}")
    batch = {tensor.shape[0] for tensor in session.get_inputs()}
    of_size = {
        size: visiongate_sessions.open_session(path, config, gpu=gpu, graph_of=dict.fromkeys(batch, size))
        for size in visiongate_sessions.graph_sizes(config)
    }
    if of_size:
        return visiongate_runs.GraphRuns(session, "cuda", gpu, of_size).run
    return visiongate_runs.BoundRuns(session, "cuda", gpu).run


def _model_file(version: Path, config: Config) -> Path:
    """Return the model file in a version's folder."""
    path = version / (config.get("default_model_filename") or "model.onnx")
    if path.is_dir():
        path /= "model.onnx"
    if not path.is_file():
        raise pb_utils.TritonModelException(f"unable to find '{path}' for model '{config['name']}'")
    return path


def _tensors(nodes: list[Any]) -> list[_TensorInfo]:
    for node in nodes:
        if node.type not in _TRITON_TYPES:
            raise pb_utils.TritonModelException(f"tensor '{node.name}' has the unsupported type {node.type}")
    return [
        _TensorInfo(
            name=node.name,
            data_type=_TRITON_TYPES[node.type],
            shape=tuple(dim if isinstance(dim, int) else -1 for dim in node.shape),
        )
        for node in nodes
    ]


def _tensor_config(config: Config, tensor: _TensorInfo) -> Config:
    dims = list(tensor.shape[1:] if config["max_batch_size"] > 0 else tensor.shape)
    entry: Config = {"name": tensor.name, "data_type": tensor.data_type, "dims": dims or [1]}
    if not dims and config["max_batch_size"] > 0:
        entry["reshape"] = {"shape": []}
    return entry


def _check_config(config: Config, inputs: list[_TensorInfo], outputs: list[_TensorInfo]) -> None:
    """Raise an error that names the tensor if the configuration and the ONNX file disagree."""
    configured = {entry["name"] for entry in config["input"]}
    for tensor in inputs:
        if tensor.name not in configured:
            raise pb_utils.TritonModelException(
                f"model '{config['name']}': config.pbtxt lacks the ONNX file's input '{tensor.name}'"
            )
    for kind, tensors in (("input", inputs), ("output", outputs)):
        by_name = {tensor.name: tensor for tensor in tensors}
        for entry in config[kind]:
            tensor = by_name.get(entry["name"])
            if tensor is None:
                raise pb_utils.TritonModelException(
                    f"model '{config['name']}': config.pbtxt has an {kind} '{entry['name']}', "
                    f"but the ONNX file's {kind}s are {', '.join(by_name)}"
                )
            _check_tensor(config, kind, entry, tensor)


def _check_tensor(config: Config, kind: str, entry: Config, tensor: _TensorInfo) -> None:
    where = f"model '{config['name']}', {kind} '{tensor.name}'"
    if entry["data_type"] != tensor.data_type:
        raise pb_utils.TritonModelException(
            f"{where}: config.pbtxt says {entry['data_type']}, the ONNX file {tensor.data_type}"
        )
    batch = [-1] if config["max_batch_size"] > 0 else []
    if batch and tensor.shape[:1] != (-1,):
        raise pb_utils.TritonModelException(
            f"{where}: max_batch_size is {config['max_batch_size']}, but the ONNX file's shape "
            f"{list(tensor.shape)} does not begin with a variable dimension"
        )
    expected = batch + [int(dim) for dim in entry.get("reshape", entry).get("shape", entry["dims"])]
    shape = list(tensor.shape) or [1]
    # Like the native backend: an input may be narrower than the file allows, an output may not.
    fits = len(expected) == len(shape) and all(
        said == actual or (actual == -1 and kind == "input")
        for said, actual in zip(expected, shape, strict=True)
    )
    if not fits:
        raise pb_utils.TritonModelException(
            f"{where}: config.pbtxt says shape {expected}, the ONNX file {list(tensor.shape)}"
        )


def _failure(message: str, code: int) -> pb_utils.InferenceResponse:
    return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(message, code))

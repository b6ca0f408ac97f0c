"""A model's session: ONNX Runtime's options by its configuration, on the CPU or on a GPU.

Beside `model.py`, in its environment. The parameters of configurations are those of Triton's native backend.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnxruntime

# ONNX Runtime tells its makers over the network that it is used, unless this forbids it before it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

Config = dict[str, Any]

_CUDA = "CUDAExecutionProvider"
# What the native backend takes for the numbers of these parameters.
_CUDA_CHOICES = {
    "cudnn_conv_algo_search": ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
    "arena_extend_strategy": ("kNextPowerOfTwo", "kSameAsRequested"),
}
_CUDA_VALUES = ("gpu_mem_limit", "do_copy_in_default_stream")
# Of ONNX Runtime's arena, of CUDA, cuBLAS and cuDNN.
_OUT_OF_MEMORY = re.compile(
    "Failed to allocate memory|is smaller than requested bytes|out of memory|STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)
# Operators by which graphs calculate with the sizes of tensors. ONNX Runtime does that on the CPU on purpose.
_SHAPE_ARITHMETIC = re.compile(
    "Shape|Size|Gather|Concat|Slice|Squeeze|Unsqueeze|Reshape|Cast|Add|Sub|Mul|Div|Mod|Neg|Min|Max|Range|Equal|"
    "ConstantOfShape|Greater|Less|Not|And|Or|Where|Expand|ReduceProd|ReduceMax|Identity|ScatterND"
)
ON_CPU = "on the CPU"
"""Is in what `placement` says of a graph that is not wholly on the GPU."""
MARK = "[placement] "
"""Begins the lines of the log that visiongate shows to its operator."""


class ModelError(RuntimeError):
    """A model that cannot be used as its configuration says: one sentence."""


def open_session(
    path: Path, config: Config, *, gpu: int | None = None, graph_of: Mapping[str, int] | None = None
) -> onnxruntime.InferenceSession:
    """Open a model file with the options of its configuration, on this GPU or on the CPU.

    graph_of: sizes of symbolic dimensions, for a session on a GPU that records a CUDA graph of them.

    Raises ModelError if the options are wrong, or if the session does not run on that GPU: ONNX Runtime would
    run it on the CPU and only write a warning.
    """
    # Not at the top: the process that only completes a complete configuration need not wait for the import.
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = {
        -1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
        1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
        2: onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    }.get(
        int(config.get("optimization", {}).get("graph", {}).get("level", 0)),
        onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    )
    execution_mode = _integer(config, "execution_mode")
    if execution_mode not in (0, 1):
        raise ModelError(f"'execution_mode' must be 0 or 1, not {execution_mode}")
    if execution_mode == 1:
        options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    threads = _integer(config, "intra_op_thread_count")
    # On a GPU no more than the arithmetic of shapes is left for them.
    options.intra_op_num_threads = threads or (_cores_per_instance(config) if gpu is None else 1)
    options.inter_op_num_threads = _integer(config, "inter_op_thread_count")
    # Between runs the threads sleep, and leave the cores to the processes of other models.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if gpu is None:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    cuda = cuda_options(config, gpu)
    for name, size in (graph_of or {}).items():
        # Then the arithmetic of shapes, which would run on the CPU, is done as the session is opened.
        options.add_free_dimension_override_by_name(name, size)
        cuda["enable_cuda_graph"] = "1"
    onnxruntime.preload_dlls()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        session = onnxruntime.InferenceSession(
            str(path),
            options,
            providers=[(_CUDA, cuda), "CPUExecutionProvider"],
            # Python's way to the CPU in silence, beside that of the library below.
            enable_fallback=0,
        )
    except Exception as error:
        raise ModelError(
            explained(f"model '{config['name']}' does not load on GPU {gpu}: {error}", config, gpu)
        ) from error
    if session.get_providers()[0] != _CUDA:
        raise ModelError(f"model '{config['name']}' cannot run on GPU {gpu}: {_missing(onnxruntime)}")
    if graph_of and ON_CPU in (where := placement(session, gpu)):
        raise ModelError(f"model '{config['name']}' cannot have 'cuda_graphs': {where}")
    return session


def cuda_options(config: Config, gpu: int) -> dict[str, str]:
    """Return the options of ONNX Runtime's CUDA provider by a model's configuration.

    They are the parameters of the accelerator "cuda", and those that the model itself may have instead.
    """
    options: dict[str, str] = {}
    accelerators = config.get("optimization", {}).get("execution_accelerators", {})
    for accelerator in accelerators.get("gpu_execution_accelerator", []):
        if accelerator["name"] != "cuda":
            raise ModelError(
                f"model '{config['name']}' asks for the accelerator '{accelerator['name']}', which Triton "
                "from pip does not have: serve it by NVIDIA's container, or by a config without accelerators"
            )
        options.update(accelerator.get("parameters", {}))
    for key, choices in _CUDA_CHOICES.items():
        if _text(config, key):
            number = _integer(config, key)
            if not 0 <= number < len(choices):
                raise ModelError(f"'{key}' must be a number from 0 to {len(choices) - 1}, not {number}")
            options[key] = choices[number]
    options.update({key: _text(config, key) for key in _CUDA_VALUES if _text(config, key)})
    return {**options, "device_id": str(gpu)}


def graph_sizes(config: Config) -> tuple[int, ...]:
    """Return the batch sizes of which a model wants CUDA graphs, from its parameter: "1 8 32"."""
    try:
        sizes = sorted({int(word) for word in _text(config, "cuda_graphs").split()})
    except ValueError:
        sizes = [0]
    if sizes and not 1 <= sizes[0] <= sizes[-1] <= config["max_batch_size"]:
        raise ModelError(
            f"'cuda_graphs' must be batch sizes from 1 to max_batch_size, such as '1 8', not "
            f"'{_text(config, 'cuda_graphs')}'"
        )
    return tuple(sizes)


def explained(message: str, config: Config, gpu: int | None) -> str:
    """Return an error of ONNX Runtime, in one sentence of ours if a GPU's memory was too small."""
    if gpu is None or not _OUT_OF_MEMORY.search(message):
        return message
    limit = _text(config, "gpu_mem_limit")
    of = (
        f"of the {int(limit) / 2**30:.1f} GiB that it may take (gpu_mem_limit)"
        if limit.isdecimal()
        else "of it"
    )
    return (
        f"model '{config['name']}' needs more memory on GPU {gpu} than is free {of}: allow more, or lower "
        "max_batch_size or the number of instances"
    )


def placement(session: onnxruntime.InferenceSession, gpu: int) -> str:
    """Say how many of a graph's nodes run on the GPU, and name those that do not."""
    nodes, others = Counter[str](), Counter[str]()
    for part in session.get_provider_graph_assignment_info():
        nodes[part.ep_name] += len(part.get_nodes())
        if part.ep_name != _CUDA:
            others.update(node.op_type for node in part.get_nodes())
    sentence = f"{nodes[_CUDA]} of {nodes.total()} nodes on GPU {gpu}"
    shapes = {name: count for name, count in others.items() if _SHAPE_ARITHMETIC.fullmatch(name)}
    work = {name: count for name, count in others.items() if name not in shapes}
    for what, counts in ((ON_CPU, work), (f"{ON_CPU}, probably arithmetic of shapes", shapes)):
        if counts:
            sentence += f"; {what}: " + ", ".join(f"{counts[name]} {name}" for name in sorted(counts))
    return sentence


def _missing(onnxruntime: Any) -> str:
    """Say why there is no CUDA: what the loader says of ONNX Runtime's library for it."""
    folder = Path(onnxruntime.__file__).parent / "capi"
    try:
        for name in ("shared", "cuda"):
            ctypes.CDLL(str(folder / f"libonnxruntime_providers_{name}.so"), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        return f"CUDA does not load ({error})"
    return "ONNX Runtime did not take CUDA; the lines before this one in the log say why"


def _cores_per_instance(config: Config) -> int:
    instances = sum(group.get("count", 1) for group in config.get("instance_group", []))
    cpus = int(os.environ.get("TRITON_CPUS", len(os.sched_getaffinity(0))))
    return max(1, cpus // max(1, instances))


def _integer(config: Config, key: str) -> int:
    text = _text(config, key) or "0"
    try:
        return int(text)
    except ValueError:
        raise ModelError(f"'{key}' must be a whole number, not '{text}'") from None


def _text(config: Config, key: str) -> str:
    text: str = config.get("parameters", {}).get(key, {}).get("string_value", "")
    return text

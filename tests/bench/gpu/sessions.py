"""ONNX Runtime's sessions on a GPU, whose inputs and outputs stay there. On a CPU they run the same way."""

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
_TYPES = {
    "float": np.float32, "float16": np.float16, "double": np.float64, "uint8": np.uint8,
    "int32": np.int32, "int64": np.int64, "bool": np.bool_,
}  # fmt: skip


class SilentCpuError(Exception):
    """A session for the GPU would compute on the CPU."""


class Session:
    """A model that is ready to run. `device` is "cuda" or "cpu"."""

    def __init__(self, content: bytes, device: str, *, cuda_graph: bool = False, tf32: bool = True) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        providers: list[Any] = ["CPUExecutionProvider"]
        if device == "cuda":
            _load_cuda()
            settings = {"use_tf32": str(int(tf32)), "enable_cuda_graph": str(int(cuda_graph))}
            providers.insert(0, ("CUDAExecutionProvider", settings))
            # What ran where is read from the profile of the first run. A CUDA graph has no nodes.
            options.enable_profiling = not cuda_graph
            self._profiles = tempfile.TemporaryDirectory()
            options.profile_file_prefix = str(Path(self._profiles.name, "profile"))
        self._is_profiled = options.enable_profiling
        self._device = device
        self._onnx = onnxruntime.InferenceSession(content, options, providers=providers)
        first = self._onnx.get_providers()[0]
        if device == "cuda" and first != "CUDAExecutionProvider":
            raise SilentCpuError(f"ONNX Runtime did not load CUDA and fell back to {first}")
        self._binding: Any = None
        self._held: list[Any] = []

    def bind(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        """Put the inputs on the device, and outputs of fixed places, which CUDA graphs need, beside them."""
        self._binding = self._onnx.io_binding()
        sizes: dict[str, int] = {}
        self._held = []
        for node in self._onnx.get_inputs():
            sizes |= {
                name: size
                for name, size in zip(node.shape, inputs[node.name].shape, strict=True)
                if isinstance(name, str)
            }
            self._binding.bind_ortvalue_input(node.name, self._value(inputs[node.name]))
        for node in self._onnx.get_outputs():
            shape = [sizes.get(size, size) for size in node.shape or ["unknown"]]
            if any(not isinstance(size, int) for size in shape):
                self._binding.bind_output(node.name, self._device)
                continue
            kind = _TYPES[re.sub(r"tensor\((.*)\)", r"\1", node.type)]
            # A place that the run leaves unwritten shows as not finite.
            blank: NDArray[Any] = np.full(shape, np.nan if issubclass(kind, np.floating) else 0, kind)
            self._binding.bind_ortvalue_output(node.name, self._value(blank))

    def call(self) -> None:
        """Run once with what is bound; return when the device has done it."""
        self._onnx.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()

    def outputs(self) -> Arrays:
        """Return copies of what the last run left."""
        names = [node.name for node in self._onnx.get_outputs()]
        return dict(zip(names, self._binding.copy_outputs_to_cpu(), strict=True))

    def products_on_cpu(self) -> list[str]:
        """Return the products and convolutions that ran on the CPU; after the first run, and only once."""
        if not self._is_profiled:
            return []
        self._is_profiled = False
        events = json.loads(Path(self._onnx.end_profiling()).read_text())
        return sorted(
            {
                f"{event['args']['op_name']} {event['name'].removesuffix('_kernel_time')}"
                for event in events
                if event.get("args", {}).get("provider") == "CPUExecutionProvider"
                and re.search("MatMul|Gemm|Conv|Attention", event["args"]["op_name"])
            }
        )

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        self.bind(inputs)
        self.call()
        return self.outputs()

    def _value(self, array: NDArray[Any]) -> Any:
        value = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self._device, 0)
        # The binding keeps addresses, not values.
        self._held.append(value)
        return value


def _load_cuda() -> None:
    # From the packages of PyTorch or NVIDIA. Without this a missing one is told in the log alone.
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise SilentCpuError("this ONNX Runtime has no CUDA: onnxruntime-gpu is not the one that is imported")

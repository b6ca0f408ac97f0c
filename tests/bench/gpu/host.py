"""What a host lacks for a run, asked before anything is started. Nothing large is imported for that."""

import ctypes
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

# What ONNX Runtime 1.31 for CUDA 13 loads. PyTorch of that CUDA brings them.
_LIBRARIES = (
    *("libcublasLt.so.13", "libcublas.so.13", "libcudart.so.13"),
    *("libcurand.so.10", "libcufft.so.12", "libcudnn.so.9"),
)
_GRAPHS = "numpy", "onnx", "onnxruntime"
_TORCH = "torch", "transformers", "torchvision", "doctr"
_SERVER = "cv2", "PIL", "tokenizers", "huggingface_hub", "grpc", "visiongate", "gateway"


@dataclass(frozen=True)
class Lack:
    """A thing that is missing. is_fatal: nothing can be measured without it."""

    sentence: str
    is_fatal: bool


def lacks(device: str, *, with_torch: bool, with_server: bool) -> Sequence[Lack]:
    """Return what this Python and this machine lack."""
    needed = [*_GRAPHS, *(_SERVER if with_server else [])]
    found = [
        Lack(f"This Python ({sys.executable}) has no {name}.", is_fatal=True)
        for name in needed
        if find_spec(name) is None
    ]
    without = [name for name in _TORCH if find_spec(name) is None] if with_torch else []
    found += [
        Lack(f"Without {name}, PyTorch's models that need it are not measured.", is_fatal=False)
        for name in without
    ]
    if with_server and not found:
        found += _lacks_of_triton()
    if device == "cuda":
        found += _lacks_of_cuda()
    return found


def _lacks_of_triton() -> list[Lack]:
    from gateway.embedded import host
    from gateway.embedded.error import EmbeddedTritonError

    try:
        host.check_host()
    except EmbeddedTritonError as error:
        return [Lack(str(error), is_fatal=True)]
    return []


def _lacks_of_cuda() -> list[Lack]:
    if not _is_library("libcuda.so.1"):
        return [Lack("There is no NVIDIA driver: libcuda.so.1 was not found.", is_fatal=True)]
    missing = [name for name in _LIBRARIES if not _is_library(name)]
    if not missing:
        return []
    names = ", ".join(missing)
    return [Lack(f"CUDA 13 is not whole: {names} not found. PyTorch for CUDA 13 has them.", is_fatal=True)]


def _is_library(name: str) -> bool:
    """Say whether a library is among Python's packages of NVIDIA's, or where the system looks."""
    spec = find_spec("nvidia")
    folders = (spec.submodule_search_locations or []) if spec else []
    if any(True for folder in folders for _ in Path(folder).glob(f"*/lib/{name}")):
        return True
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True

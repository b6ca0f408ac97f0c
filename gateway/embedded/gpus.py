"""The GPUs that models are to run on: whether this machine has what is asked for."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.commands.gpus import Gpus
from gateway.embedded.error import EmbeddedTritonError

_PROBE = Path(__file__).with_name("gpu_probe.py")
_PROBE_TIMEOUT_S = 60
_WITHOUT = "leave --gpu out to run on the CPU"
# Of the ONNX Runtime in requirements-gpu.lock. It has machine code for compute capabilities 7.5, 8.0, 8.6,
# 8.9, 9.0 and 12.0, and nothing that a driver could translate for others. Later minor versions run it too.
_MIN_CUDA = 13000
_MIN_DRIVER = 580
_MIN_MINORS = {7: 5, 8: 0, 9: 0, 12: 0}
_NO_DEVICE = 100


def checked(gpus: Gpus) -> Gpus:
    """Return what is asked for with the numbers of the GPUs, once this machine was found to have them.

    Raises EmbeddedTritonError, in one sentence that says what to do.
    """
    return on_machine(gpus, _found())


def on_machine(gpus: Gpus, found: Mapping[str, Any]) -> Gpus:
    """Return what is asked for with the numbers of the GPUs. found: what `gpu_probe` prints.

    Raises EmbeddedTritonError if the machine does not have it.
    """
    if "missing" in found:
        raise EmbeddedTritonError(
            f"--gpu needs NVIDIA's driver, which is not here ({found['missing']}): install it, start a "
            f"container with `--gpus all`, or {_WITHOUT}."
        )
    if found["cuda"] < _MIN_CUDA:
        raise EmbeddedTritonError(
            f"--gpu needs a driver for CUDA {_version(_MIN_CUDA)}, and this machine's is for CUDA "
            f"{_version(found['cuda'])}: install NVIDIA's driver {_MIN_DRIVER} or newer, or {_WITHOUT}."
        )
    here = found.get("gpus", [])
    if not here:
        code = found.get("error", _NO_DEVICE)
        reason = "" if code == _NO_DEVICE else f" (CUDA error {code})"
        raise EmbeddedTritonError(
            f"NVIDIA's driver has no GPU for this process{reason}: look at nvidia-smi and "
            f"CUDA_VISIBLE_DEVICES, or {_WITHOUT}."
        )
    names = ", ".join(f"{index}: {gpu['name']}" for index, gpu in enumerate(here))
    if absent := [index for index in gpus.indices if index >= len(here)]:
        raise EmbeddedTritonError(
            f"--gpus names GPU {', '.join(map(str, absent))}, and this machine has {len(here)} ({names})."
        )
    indices = gpus.indices or tuple(range(len(here)))
    for index in indices:
        gpu = here[index]
        major, minor = gpu["capability"]
        if minor < _MIN_MINORS.get(major, sys.maxsize):
            raise EmbeddedTritonError(
                f"GPU {index}, {gpu['name']}, has compute capability {major}.{minor}, for which ONNX "
                f"Runtime's package has no code (7.5, 8.x, 9.x, 12.x): choose others by --gpus, or "
                f"{_WITHOUT}."
            )
        if gpus.memory_limit is not None and gpus.memory_limit > gpu["memory"]:
            raise EmbeddedTritonError(
                f"--gpu-memory-limit is {gpus.memory_limit / 2**30:.1f} GiB, and GPU {index}, "
                f"{gpu['name']}, has {gpu['memory'] / 2**30:.1f}."
            )
    return dataclasses.replace(gpus, indices=indices)


def _found() -> Mapping[str, Any]:
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(_PROBE)],
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT_S,
            check=True,
        )
    except subprocess.TimeoutExpired:
        raise EmbeddedTritonError(
            f"NVIDIA's driver did not answer within {_PROBE_TIMEOUT_S} s: look at nvidia-smi, or {_WITHOUT}."
        ) from None
    except subprocess.CalledProcessError as error:
        last = error.stderr.strip().splitlines()[-1:] or [f"exit code {error.returncode}"]
        raise EmbeddedTritonError(
            f"NVIDIA's driver cannot be asked ({last[0]}): look at nvidia-smi, or {_WITHOUT}."
        ) from error
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _version(cuda: int) -> str:
    return f"{cuda // 1000}.{cuda % 1000 // 10}"

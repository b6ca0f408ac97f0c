"""Print what NVIDIA's driver says of this machine's GPUs, as one line of JSON.

A separate program that uses the standard library alone: `python -I -S gpu_probe.py`. The driver opens devices
and starts threads in the process that asks it, and a broken one may hang.

It prints {"missing": why} if there is no driver, {"cuda": version, "error": code} if the driver does not
start, and else {"cuda": version, "gpus": [{"name", "memory", "capability"}, …]}. The version is 13000 for
CUDA 13.0, the memory is in bytes. GPUs are counted as by all programs of CUDA: CUDA_VISIBLE_DEVICES applies.
"""

import ctypes
import json
from typing import Any

# CUdevice_attribute: the compute capability.
_MAJOR, _MINOR = 75, 76


def probe() -> dict[str, Any]:
    """Ask the driver."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return {"missing": str(error)}
    version = ctypes.c_int()
    cuda.cuDriverGetVersion(ctypes.byref(version))
    if code := cuda.cuInit(0):
        return {"cuda": version.value, "error": code}
    count = ctypes.c_int()
    if code := cuda.cuDeviceGetCount(ctypes.byref(count)):
        return {"cuda": version.value, "error": code}
    return {"cuda": version.value, "gpus": [_gpu(cuda, index) for index in range(count.value)]}


def _gpu(cuda: ctypes.CDLL, index: int) -> dict[str, Any]:
    device, memory, name = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(256)
    cuda.cuDeviceGet(ctypes.byref(device), index)
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    capability = []
    for attribute in (_MAJOR, _MINOR):
        value = ctypes.c_int()
        cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        capability.append(value.value)
    return {"name": name.value.decode(errors="replace"), "memory": memory.value, "capability": capability}


if __name__ == "__main__":
    print(json.dumps(probe()), flush=True)

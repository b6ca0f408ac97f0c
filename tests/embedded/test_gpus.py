import ctypes.util
from typing import Any

import pytest

from gateway.commands.gpus import Gpus
from gateway.embedded import EmbeddedTritonError, gpus

H100 = {"name": "NVIDIA H100", "memory": 80 << 30, "capability": [9, 0]}
L4 = {"name": "NVIDIA L4", "memory": 24 << 30, "capability": [8, 9]}
V100 = {"name": "Tesla V100", "memory": 16 << 30, "capability": [7, 0]}
B200 = {"name": "NVIDIA B200", "memory": 180 << 30, "capability": [10, 0]}


def machine(*found: dict[str, Any]) -> dict[str, Any]:
    return {"cuda": 13000, "gpus": list(found)}


def test_all_gpus_or_those_that_are_named() -> None:
    assert gpus.on_machine(Gpus(instances=2), machine(H100, L4)) == Gpus((0, 1), 2)
    assert gpus.on_machine(Gpus((1,), memory_limit=24 << 30), machine(H100, L4)) == Gpus((1,), None, 24 << 30)
    # One that cannot be used does not matter where it is not wanted.
    assert gpus.on_machine(Gpus((1,)), machine(V100, L4)) == Gpus((1,))


@pytest.mark.parametrize(
    ("asked", "found", "says"),
    [
        (
            Gpus(),
            {"missing": "libcuda.so.1: not there"},
            r"needs NVIDIA's driver, .*libcuda\.so\.1: not there",
        ),
        (Gpus(), {"cuda": 12080, "gpus": [H100]}, r"for CUDA 13\.0, .* is for CUDA 12\.8: .*580 or newer"),
        (Gpus(), {"cuda": 13000, "error": 100}, "has no GPU for this process: .*CUDA_VISIBLE_DEVICES"),
        (Gpus(), {"cuda": 13020, "error": 999}, r"no GPU for this process \(CUDA error 999\)"),
        (Gpus(), machine(), "no GPU for this process"),
        (Gpus((0, 2, 5)), machine(H100, L4), r"GPU 2, 5, .* has 2 \(0: NVIDIA H100, 1: NVIDIA L4\)"),
        (Gpus(), machine(H100, V100), r"GPU 1, Tesla V100, has compute capability 7\.0"),
        (Gpus(), machine(B200), r"GPU 0, NVIDIA B200, has compute capability 10\.0"),
        (Gpus(memory_limit=32 << 30), machine(H100, L4), r"is 32\.0 GiB, and GPU 1, NVIDIA L4, has 24\.0"),
    ],
)
def test_what_the_machine_does_not_have_is_refused_in_one_sentence(
    asked: Gpus, found: dict[str, Any], says: str
) -> None:
    with pytest.raises(EmbeddedTritonError, match=says) as caught:
        gpus.on_machine(asked, found)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(bool(ctypes.util.find_library("cuda")), reason="this machine has NVIDIA's driver")
def test_a_machine_without_driver_is_refused() -> None:
    with pytest.raises(EmbeddedTritonError, match=r"libcuda\.so\.1.*leave --gpu out"):
        gpus.checked(Gpus())

"""TensorRT for RTX, which builds engines without a GPU: installed for the tests that ask for it."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# The meta package of these two cannot be installed: it has no wheel.
PACKAGES = ("tensorrt-rtx-cu13-libs==1.7.1.116", "tensorrt-rtx-cu13-bindings==1.7.1.116")


def install(folder: Path) -> None:
    """Install it into a folder, once; skip where that cannot be done. 95 MB, under NVIDIA's licence."""
    if folder.is_dir():
        return
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    result = subprocess.run([*command, *PACKAGES], capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(f"cannot install {PACKAGES[0]}: {result.stderr.strip().splitlines()[-1]}")


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Inside, the packages of the folder can be imported."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))

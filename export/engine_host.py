"""What this host builds and runs TensorRT engines with: a Python package of TensorRT, and a GPU."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from export.errors import ExportError, first_line

MIN_VERSION = (10, 12)
"""Of the package `tensorrt`. Older ones choose precisions on their own unless they are told not to."""
TENSORRT, TENSORRT_RTX = "tensorrt", "tensorrt_rtx"
# What NVIDIA's wheels of TensorRT for RTX call the module, if the one that only forwards to it is missing.
_MODULES = {TENSORRT: (TENSORRT,), TENSORRT_RTX: (TENSORRT_RTX, "tensorrt_rtx_bindings")}
_WHERE = (
    "NVIDIA's container nvcr.io/nvidia/tensorrt of the same release as Triton's has tensorrt, and "
    "`pip install --no-deps tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings` installs tensorrt_rtx"
)


@dataclass(frozen=True)
class TensorRT:
    """A package of TensorRT. `module` has the Builder and the parser."""

    package: str
    version: str
    module: Any

    @property
    def is_rtx(self) -> bool:
        """Whether it is TensorRT for RTX, which builds without a GPU, for any one that it knows."""
        return self.package == TENSORRT_RTX


@dataclass(frozen=True)
class Gpu:
    """A GPU: its name, and its compute capability such as "8.9"."""

    name: str
    compute_capability: str


def tensorrt() -> TensorRT:
    """Return the package `tensorrt`, or `tensorrt_rtx` if that is missing. Raise ExportError if both are."""
    faults = []
    for package, modules in _MODULES.items():
        for name in modules:
            try:
                module = import_module(name)
                # A wheel on PyPI is an empty placeholder of the package's name.
                found = TensorRT(package, module.__version__, module)
                _ = module.Builder, module.OnnxParser
            except ModuleNotFoundError as error:
                if error.name != name:
                    faults.append(f"{name} does not load: {first_line(error)}")
            except (ImportError, OSError, AttributeError) as error:
                faults.append(f"{name} does not load: {first_line(error)}")
            else:
                _check_version(found)
                return found
    why = faults[0] if faults else "neither of the packages tensorrt and tensorrt_rtx is installed"
    raise ExportError(f"TensorRT's engines cannot be built: {why}; {_WHERE}.")


def _check_version(library: TensorRT) -> None:
    version = tuple(int(part) for part in library.version.split(".")[:2])
    if not library.is_rtx and version < MIN_VERSION:
        raise ExportError(
            f"TensorRT {library.version} is too old: engines need {'.'.join(map(str, MIN_VERSION))} or newer."
        )


def gpu() -> Gpu | None:
    """Return the first GPU, or None if there is none or no driver for it."""
    from gateway.embedded import gpu_probe

    for found in gpu_probe.probe().get("gpus", ()):
        return Gpu(found["name"], ".".join(map(str, found["capability"])))
    return None

"""What Triton from pip needs of this machine and of this Python."""

import ctypes.util
import os
import platform
import sys
import sysconfig
from pathlib import Path

from gateway.embedded.error import EmbeddedTritonError

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
ADVICE = "run NVIDIA's Triton container and `visiongate serve --triton HOST:PORT` instead"

# The last NumPy before 2 has wheels up to Python 3.12. ONNX Runtime's wheels begin at 3.11.
_PYTHONS = ("3.11", "3.12")
_MIN_GLIBC = (2, 35)


def check_host() -> None:
    """Raise EmbeddedTritonError, which says what to do instead, if the wheel's binaries cannot run here."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise EmbeddedTritonError(
            f"Triton from pip runs on x86-64 Linux only, not on {platform.machine()} {platform.system()}: "
            f"{ADVICE}."
        )
    glibc = _glibc_version()
    if glibc is None or glibc < _MIN_GLIBC:
        c_library = "no glibc" if glibc is None else f"glibc {glibc[0]}.{glibc[1]}"
        raise EmbeddedTritonError(
            f"Triton from pip needs glibc {_MIN_GLIBC[0]}.{_MIN_GLIBC[1]} or newer and this system has "
            f"{c_library}: {ADVICE}."
        )
    if PYTHON not in _PYTHONS or sys.implementation.name != "cpython":
        raise EmbeddedTritonError(
            f"Triton from pip runs on CPython {' and '.join(_PYTHONS)}, not on "
            f"{platform.python_implementation()} {PYTHON}: use one of those, or {ADVICE}."
        )
    libpython_folder()


def libpython_folder() -> Path | None:
    """Return the folder of Python's shared library, or None if the loader finds it without help."""
    library = f"libpython{PYTHON}.so.1.0"
    for folder in (sysconfig.get_config_var("LIBDIR"), f"{sys.base_prefix}/lib"):
        if folder and Path(folder, library).exists():
            return Path(folder)
    if ctypes.util.find_library(f"python{PYTHON}"):
        return None
    raise EmbeddedTritonError(
        f"Triton's Python backend needs {library}, which this Python was built without: install the system's "
        f"libpython{PYTHON} package, use a Python with a shared library (uv's have one), or {ADVICE}."
    )


def _glibc_version() -> tuple[int, int] | None:
    try:
        name, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
        major, minor = version.split(".")[:2]
    except (ValueError, OSError):  # musl has no such name
        return None
    return (int(major), int(minor)) if name == "glibc" else None

"""What machine a measurement is of."""

import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = "visiongate-server", "onnxruntime", "grpcio", "pillow", "numpy"


@dataclass(frozen=True, slots=True)
class Machine:
    """cores: those that this process may use. load: processes that wanted one, in the last minute's mean."""

    processor: str
    cores: int
    system: str
    python: str
    versions: dict[str, str]
    load: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        return (
            f"{self.processor}, {self.cores} cores (load {self.load:.1f}), {self.system}, "
            f"Python {self.python}, {versions}"
        )


def machine() -> Machine:
    """Return this one."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return Machine(
        _processor(),
        len(os.sched_getaffinity(0)),
        platform.system(),
        platform.python_version(),
        versions,
        os.getloadavg()[0],
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()

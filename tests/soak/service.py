"""A gateway as a process of its own, as in production, and what can be seen of it from outside."""

import os
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from export.demo.serving import REPOSITORY
from gateway.embedded import EmbeddedTriton

# Small, so that they are full, and at work, long before memory is looked at.
CACHES = {
    "--image-cache-bytes": 20_000_000,
    "--sam-embedding-cache-bytes": 5_000_000,
    "--clip-text-cache-bytes": 5_000_000,
    "--clip-image-cache-bytes": 5_000_000,
}
COMMAND = str(Path(sys.executable).parent / "visiongate")
SERIES = re.compile(r"^(\w+(?:\{[^}]*\})?) ([-+.\deE]+|NaN)$", re.MULTILINE)


@dataclass(frozen=True)
class Service:
    """A running gateway. `address` is its gRPC address."""

    process: subprocess.Popen[str]
    address: str
    metrics_url: str

    @property
    def resident_mb(self) -> float:
        """Megabytes of memory of the process."""
        return self._memory_mb("VmRSS")

    @property
    def peak_mb(self) -> float:
        """The most that `resident_mb` has ever been, or since it was forgotten."""
        return self._memory_mb("VmHWM")

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def _memory_mb(self, kind: str) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(rf"{kind}:\s+(\d+) kB", status)[0]) / 1024

    @property
    def open_files(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def metrics(self) -> dict[str, float]:
        """What /metrics says, by series."""
        with urllib.request.urlopen(self.metrics_url) as answer:
            return {name: float(value) for name, value in SERIES.findall(answer.read().decode())}

    def refusals(self) -> dict[str, float]:
        """How many calls the gateway has refused, by reason."""
        prefix = 'visiongate_refusals_total{reason="'
        return {
            name.removeprefix(prefix).removesuffix('"}'): value
            for name, value in self.metrics().items()
            if name.startswith(prefix)
        }


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


@contextmanager
def serving(triton: str, *arguments: str, repository: Path = REPOSITORY) -> Iterator[Service]:
    """Start `visiongate serve` in front of Triton; it must end with 0 when it is told to stop."""
    metrics_port = free_port()
    places = ["--triton", triton, "--repository", str(repository), "--metrics-port", str(metrics_port)]
    caches = [text for name, size in CACHES.items() for text in (name, str(size))]
    with subprocess.Popen(
        [COMMAND, "serve", "--port", "0", "--log-level", "warning", *caches, *places, *arguments],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            first_line = process.stdout.readline()
            match = re.search(r"answers at (\S+)", first_line)
            if match is None:
                raise RuntimeError(f"visiongate serve did not start: {first_line}")
            yield Service(process, match[1], f"http://127.0.0.1:{metrics_port}/metrics")
        finally:
            process.terminate()
            code = process.wait(60)
    if code:
        raise RuntimeError(f"visiongate serve ended with {code}")


@contextmanager
def serving_apart(*arguments: str) -> Iterator[Service]:
    """Start Triton on a core of its own, as it has a GPU in production, and a gateway on the others."""
    triton_core, *others = sorted(os.sched_getaffinity(0))
    if not others:
        sys.exit("two cores are needed: one for Triton, the others for gateway and callers")
    # A process starts with the affinity of the thread that starts it.
    os.sched_setaffinity(0, {triton_core})
    with EmbeddedTriton(REPOSITORY) as triton:
        os.sched_setaffinity(0, others)
        with serving(triton.grpc_address, *arguments) as service:
            yield service

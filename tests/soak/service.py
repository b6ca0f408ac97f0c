"""A gateway as a process of its own, as in production, and what can be seen of it from outside."""

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

# Small, so that they are full, and at work, long before memory is looked at.
CACHES = ("--image-cache-bytes", "20000000", "--sam-embedding-cache-bytes", "5000000")
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
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1024

    @property
    def open_files(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def metrics(self) -> dict[str, float]:
        """What /metrics says, by series."""
        with urllib.request.urlopen(self.metrics_url) as answer:
            return {name: float(value) for name, value in SERIES.findall(answer.read().decode())}


@contextmanager
def serving(triton: str, *arguments: str) -> Iterator[Service]:
    """Start `visiongate serve` in front of a Triton; it must end with 0 when it is told to stop."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        metrics_port = free.getsockname()[1]
    places = ["--triton", triton, "--repository", str(REPOSITORY), "--metrics-port", str(metrics_port)]
    with subprocess.Popen(
        [COMMAND, "serve", "--port", "0", "--log-level", "warning", *CACHES, *places, *arguments],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            said = process.stdout.readline()
            found = re.search(r"answers at (\S+)", said)
            if found is None:
                raise RuntimeError(f"visiongate serve did not start: {said}")
            yield Service(process, found[1], f"http://127.0.0.1:{metrics_port}/metrics")
        finally:
            process.terminate()
            code = process.wait(60)
    if code:
        raise RuntimeError(f"visiongate serve ended with {code}")

"""The parts of the service as processes on hosts, by the commands that operators use."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from alerts import samples
from envoy import PROGRAM
from export.demo.serving import REPOSITORY
from hosts.network import Host

COMMAND = str(Path(sys.executable).parent / "visiongate")
TRITON_HTTP_PORT, TRITON_PORT, GRPC_PORT, HTTP_PORT, METRICS_PORT = 8000, 8001, 50051, 8080, 9090
PLAIN_PORT, TLS_PORT, EDGE_METRICS_PORT = 8080, 8443, 9902
DRAIN_S = 5
"""Of a gateway that is told to stop, and of an edge that is replaced."""
_STOP_S = 40.0

Series = dict[str, float]


@dataclass
class Part:
    """A process on a host, whose output goes to a log file. It dies with this process, at the latest."""

    host: Host
    words: list[str]
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            # Of Debian's util-linux: the kernel kills it when the thread that starts it has ended.
            command = ["setpriv", "--pdeathsig", "KILL", *self.host.command(*self.words)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    @property
    def log(self) -> Path:
        return self.folder / f"{self.host.port}.log"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    async def stop(self) -> int:
        """Tell it to stop, and return its exit code. It is killed if it takes too long."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        return await ended(self.process)


async def ended(process: subprocess.Popen[bytes], timeout_s: float = _STOP_S) -> int:
    """Wait for a process; kill it if it takes too long."""
    try:
        async with asyncio.timeout(timeout_s):
            while (code := process.poll()) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            return code
    except TimeoutError:
        process.kill()
        return process.wait()


class Triton(Part):
    """`visiongate triton`, which starts a tritonserver anew that has died."""

    def __init__(self, host: Host, folder: Path) -> None:
        super().__init__(host, [COMMAND, "triton", "--demo", "--host", host.address], folder)

    @property
    def address(self) -> str:
        return f"{self.host.address}:{TRITON_PORT}"

    @property
    def server(self) -> int:
        """The process id of tritonserver: it leads a process group that nothing else is in."""
        found = [
            pid for pid in _descendants(self.pid) if _name(pid) == "tritonserver" and os.getpgid(pid) == pid
        ]
        return found[0]

    async def is_ready(self) -> bool:
        """Ask itself: what gateways know of it may be older than its last start."""
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=2) as client:
                answer = await client.get(f"http://{self.host.address}:{TRITON_HTTP_PORT}/v2/health/ready")
        except httpx.TransportError:
            return False
        return answer.status_code == 200

    def kill(self) -> None:
        os.kill(self.server, signal.SIGKILL)

    def freeze(self) -> None:
        os.killpg(self.server, signal.SIGSTOP)

    def thaw(self) -> None:
        os.killpg(self.server, signal.SIGCONT)


class Gateway(Part):
    """`visiongate serve`, which asks several Tritons."""

    def __init__(self, host: Host, folder: Path, tritons: list[Triton]) -> None:
        options = {
            "--triton": ",".join(triton.address for triton in tritons),
            "--repository": REPOSITORY,
            "--host": host.address,
            "--port": GRPC_PORT,
            "--http-host": host.address,
            "--http-port": HTTP_PORT,
            "--metrics-host": host.address,
            "--metrics-port": METRICS_PORT,
            "--drain-s": DRAIN_S,
            "--processes": 1,
            "--api-keys": folder / "keys.toml",
            "--image-id-secret": folder / "secret",
            "--log-format": "json",
        }
        super().__init__(
            host, [COMMAND, "serve", *(str(word) for pair in options.items() for word in pair)], folder
        )

    async def metrics(self) -> Series:
        return await _page(f"http://{self.host.address}:{METRICS_PORT}/metrics")

    async def readiness(self) -> tuple[int, str]:
        """What /readyz says: its status, and its words. (0, "") if nobody answers."""
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=2) as client:
                answer = await client.get(f"http://{self.host.address}:{METRICS_PORT}/readyz")
        except httpx.TransportError:
            return 0, ""
        return answer.status_code, answer.text


@dataclass
class Edge(Part):
    """Envoy. It is replaced as Envoy's own hot restart does it: the new process takes over the sockets."""

    _epoch: int = field(default=0, init=False)

    @classmethod
    def on(cls, host: Host, folder: Path, config: Path) -> "Edge":
        # Others on this machine have memory of their own for that, by this number.
        base = _base_id()
        words = [str(PROGRAM), "--config-path", str(config), "--concurrency", "1", "--log-level", "warning"]
        words += ["--base-id", str(base), "--drain-time-s", str(DRAIN_S)]
        words += ["--parent-shutdown-time-s", str(DRAIN_S + 3), "--file-flush-interval-msec", "500"]
        return cls(host, words, folder)

    async def stop(self) -> int:
        code = await super().stop()
        # Envoy leaves it behind.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"/dev/shm/envoy_shared_memory_{10 * _base_id()}")
        return code

    def replace(self) -> subprocess.Popen[bytes]:
        """Start the next process, and return the one before, which drains and ends by itself."""
        before = self.process
        assert before is not None
        if self._epoch:
            del self.words[-2:]
        self._epoch += 1
        self.words += ["--restart-epoch", str(self._epoch)]
        self.start()
        return before

    async def metrics(self) -> Series:
        return await _page(f"http://{self.host.address}:{EDGE_METRICS_PORT}/stats/prometheus")


def _base_id() -> int:
    return os.getpid() % 100_000


async def _page(url: str) -> Series:
    """Return the series of a page of metrics; none where nobody answers."""
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=2) as client:
            answer = await client.get(url)
    except httpx.TransportError:
        return {}
    return samples(answer.text) if answer.status_code == 200 else {}


def _descendants(pid: int) -> list[int]:
    children = [
        int(child)
        for listed in Path(f"/proc/{pid}/task").glob("*/children")
        for child in listed.read_text().split()
    ]
    return children + [pid for child in children for pid in _descendants(child)]


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()

"""Servers started for a measurement: processes of their own, with their output in a file."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.bench.cpu import tree
from visiongate.command_error import CommandError

VISIONGATE = (sys.executable, "-m", "visiongate")
_STOP_GRACE_S = 15
_START_S = 180
_LOOK_S = 0.1
_SAID = 600

NO_CACHES: Mapping[str, str] = {
    "VISIONGATE_IMAGE_CACHE_BYTES": "0",
    "VISIONGATE_SAM_EMBEDDING_CACHE_BYTES": "0",
    "VISIONGATE_CLIP_TEXT_CACHE_BYTES": "0",
    "VISIONGATE_CLIP_IMAGE_CACHE_BYTES": "0",
}


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers. pid: of the process that started all others of it."""

    address: str
    pid: int


def free_port() -> int:
    """Return a port that nobody has now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def running(
    name: str,
    command: Sequence[str],
    port: int,
    log: Path,
    environment: Mapping[str, str] | None = None,
    is_ready: Callable[[str], bool] | None = None,
    wait_s: float = _START_S,
) -> Iterator[Server]:
    """Lend a server that a command starts, once it listens on the port and is ready.

    Raises CommandError, with the end of what it wrote, if it ends before or does not become ready.
    """
    address = f"127.0.0.1:{port}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        try:
            end = time.monotonic() + wait_s
            while not (_listens(port) and (is_ready is None or is_ready(address))):
                if process.poll() is not None or time.monotonic() > end:
                    why = "has ended" if process.poll() is not None else f"did not answer in {wait_s:.0f} s"
                    raise CommandError(f"{name} {why}: {_end(log) or 'it wrote nothing'}")
                time.sleep(_LOOK_S)
            yield Server(address, process.pid)
        finally:
            _stop(process)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _end(log: Path) -> str:
    return log.read_text(errors="replace").strip()[-_SAID:]


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the process to stop; kill it, and what it leaves behind, if it does not."""
    everyone = tree([process.pid])
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_GRACE_S)
    for pid in everyone:
        # Processes that others have taken the number of are not meant: nobody did in these seconds.
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def triton(repository: Path, folder: Path, name: str = "triton") -> Iterator[Server]:
    """Lend a Triton from pip that has loaded a repository."""
    grpc_port, http_port, metrics_port = free_port(), free_port(), free_port()
    command = [
        *(*VISIONGATE, "triton", "--repository", str(repository.absolute())),
        *("--grpc-port", str(grpc_port), "--http-port", str(http_port), "--metrics-port", str(metrics_port)),
    ]
    # It says so once all models are loaded. Its ports answer before.
    log = folder / f"{name}.log"
    with running(
        "Triton",
        command,
        grpc_port,
        log,
        is_ready=lambda _: "answers gRPC" in log.read_text(errors="replace"),
    ) as server:
        yield server


@contextlib.contextmanager
def gateway(
    triton_address: str,
    repository: Path,
    folder: Path,
    environment: Mapping[str, str] = NO_CACHES,
    name: str = "gateway",
) -> Iterator[Server]:
    """Lend a gateway in front of a Triton; without caches, unless the environment says otherwise."""
    port = free_port()
    command = [
        *(*VISIONGATE, "serve", "--triton", triton_address, "--repository", str(repository.absolute())),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]
    log = folder / f"{name}.log"
    with running(
        "the gateway",
        command,
        port,
        log,
        environment,
        lambda _: "answers at" in log.read_text(errors="replace"),
    ) as server:
        yield server

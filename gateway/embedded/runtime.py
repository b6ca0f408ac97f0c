"""A real Triton as a child process: started on free loopback ports, watched, and never left behind."""

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from gateway.embedded.environment import (
    EmbeddedTritonError,
    Progress,
    cache_directory,
    ensure_backends,
    ensure_environment,
    is_plain,
    process_environment,
    triton_directory,
)
from gateway.embedded.server_log import ServerLog, explanation

_HOST = "127.0.0.1"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the kernel's name for it
_SHARED_MEMORY_ADVISED = 256 << 20
_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_STOP_GRACE_S = 10
_POLL_S = 0.05
# Triton goes on to unload the models one by one, and takes seconds for it.
_REQUESTS_DONE = "All models are stopped, unloading models"
_PORT_ATTEMPTS = 5


def _silent(_: str) -> None:
    pass


class EmbeddedTriton:
    """Triton from pip, serving a model repository until the `with` block or this process ends.

    Every port is bound to loopback; port 0 picks a free one. `log` is given the server's log line by line
    (in another thread), `progress` what the user waits for. A supervisor process ends Triton and its Python
    processes when this process dies, even by SIGKILL.
    """

    def __init__(
        self,
        repository: Path,
        *,
        grpc_port: int = 0,
        http_port: int = 0,
        metrics_port: int = 0,
        model_control: Literal["none", "explicit", "poll"] = "none",
        start_timeout_s: float = 120,
        extra_arguments: Sequence[str] = (),
        log: Callable[[str], None] | None = None,
        progress: Progress = _silent,
    ) -> None:
        self._repository = repository
        self._asked_ports = (grpc_port, http_port, metrics_port)
        self._model_control = model_control
        self._start_timeout_s = start_timeout_s
        self._extra_arguments = tuple(extra_arguments)
        self._forward_log = log
        self._progress = progress
        self._supervisor: subprocess.Popen[str] | None = None
        self._log: ServerLog | None = None
        self._pid = 0
        self._ports = (0, 0, 0)
        self._server_id = ""

    @property
    def grpc_address(self) -> str:
        """`127.0.0.1:PORT` of the gRPC service."""
        return self._address(0)

    @property
    def http_address(self) -> str:
        """`127.0.0.1:PORT` of the HTTP service."""
        return self._address(1)

    @property
    def metrics_address(self) -> str:
        """`127.0.0.1:PORT` where Prometheus finds the metrics, at /metrics."""
        return self._address(2)

    @property
    def pid(self) -> int:
        """The process id of tritonserver, and of its process group."""
        self._running()
        return self._pid

    def start(self) -> None:
        """Start Triton and return when it and all its models are ready; raise its own words if it fails."""
        if self._supervisor is not None:
            raise EmbeddedTritonError("Triton is already started.")
        self._check_repository()
        environment = ensure_environment(self._progress)
        backends = ensure_backends(environment)
        sweep_shared_memory()
        self._check_shared_memory()
        for port in filter(None, self._asked_ports):
            _check_free(port)
        deadline = time.monotonic() + self._start_timeout_s
        for attempt in range(_PORT_ATTEMPTS):
            self._ports = _fill_ports(self._asked_ports)
            try:
                self._launch(environment, backends)
                self._wait_until_ready(deadline)
            except _PortTakenError:
                # Somebody took a free port between our look and Triton's bind.
                self.stop()
                if attempt == _PORT_ATTEMPTS - 1:
                    raise
            except BaseException:
                self.stop()
                raise
            else:
                return

    def stop(self) -> None:
        """Stop Triton: requests under way get some seconds to finish. Does nothing if it is not running."""
        if self._supervisor is None or self._log is None:
            return
        self._supervisor.terminate()
        deadline = time.monotonic() + _STOP_GRACE_S + 5
        while self._supervisor.poll() is None:
            if time.monotonic() > deadline:
                self._supervisor.kill()  # and the kernel tritonserver with it
            elif self._log.has(_REQUESTS_DONE):
                self._supervisor.terminate()  # again: at once
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._supervisor.wait(_POLL_S)
        self._log.close(timeout_s=5)
        self._supervisor = self._log = None

    def poll(self) -> int | None:
        """Return None while Triton runs, its exit status (128 + N for signal N) once it has ended."""
        return self._running().poll()

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait until Triton has ended and return its exit status; TimeoutError when it runs on."""
        try:
            return self._running().wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"Triton still runs after {timeout_s} s.") from None

    def explanation(self) -> str:
        """Return the lines of Triton's log that say what went wrong last."""
        if self.poll() is not None and self._log is not None:
            self._log.close(timeout_s=5)
        return explanation(self._log.lines()) if self._log is not None else ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _running(self) -> subprocess.Popen[str]:
        if self._supervisor is None:
            raise EmbeddedTritonError("Triton is not started.")
        return self._supervisor

    def _address(self, index: int) -> str:
        self._running()
        return f"{_HOST}:{self._ports[index]}"

    def _check_repository(self) -> None:
        if not self._repository.is_dir():
            raise EmbeddedTritonError(f"The model repository {self._repository} is not a directory.")
        if self._model_control == "none" and not any(path.is_dir() for path in self._repository.iterdir()):
            raise EmbeddedTritonError(f"The model repository {self._repository} holds no model.")

    def _check_shared_memory(self) -> None:
        size = os.statvfs(_SHARED_MEMORY)
        if size.f_blocks * size.f_frsize < _SHARED_MEMORY_ADVISED:
            self._progress(
                f"{_SHARED_MEMORY} is under {_SHARED_MEMORY_ADVISED >> 20} MiB: large batches may fail "
                "(for a container: --shm-size=1g)"
            )

    def _launch(self, environment: Path, backends: Path) -> None:
        lock, self._server_id = _claim_shared_memory_prefix()
        try:
            # No preexec_fn, so that Python starts it by vfork: a fork in a process that runs gRPC may hang.
            self._supervisor = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", str(_SUPERVISOR)),
                    *(str(os.getpid()), str(_STOP_GRACE_S), self._server_id),
                    *self._command(environment, backends),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                # The embedded interpreters look for modules in the working directory first.
                cwd=backends,
                env=process_environment(environment),
                pass_fds=(lock,),
                start_new_session=True,  # Ctrl-C is ours to handle
            )
        finally:
            os.close(lock)
        assert self._supervisor.stdout is not None
        assert self._supervisor.stderr is not None
        self._log = ServerLog(self._supervisor.stderr, self._forward_log)
        with self._supervisor.stdout as stdout:
            self._pid = int(stdout.readline() or 0)

    def _command(self, environment: Path, backends: Path) -> list[str]:
        triton = triton_directory(environment)
        grpc_port, http_port, metrics_port = self._ports
        return [
            str(triton / "bin" / "tritonserver"),
            f"--id={self._server_id}",
            f"--model-repository={_plain_path(self._repository)}",
            f"--model-control-mode={self._model_control}",
            f"--backend-directory={backends}",
            f"--backend-config=python,shm-region-prefix-name={self._server_id}",
            f"--cache-directory={triton / 'caches'}",
            f"--grpc-address={_HOST}",
            f"--grpc-port={grpc_port}",
            f"--http-address={_HOST}",
            f"--http-port={http_port}",
            f"--metrics-address={_HOST}",
            f"--metrics-port={metrics_port}",
            "--allow-gpu-metrics=false",
            f"--exit-timeout-secs={_STOP_GRACE_S}",
            # Completing starts and ends a Python process for each model: about a second, one after another.
            *(["--disable-auto-complete-config"] if _are_complete(self._repository) else []),
            *self._extra_arguments,
        ]

    def _wait_until_ready(self, deadline: float) -> None:
        assert self._log is not None
        while not self._is_ready():
            status = self.poll()
            if status is not None:
                self._log.close(timeout_s=5)
                message = explanation(self._log.lines())
                kind = _PortTakenError if "already in use" in message else EmbeddedTritonError
                raise kind(f"Triton did not start (exit status {status}):\n{message}")
            if time.monotonic() > deadline:
                raise EmbeddedTritonError(
                    f"Triton was not ready within {self._start_timeout_s:g} s; its log ends:\n"
                    + explanation(self._log.lines())
                )
            time.sleep(_POLL_S)

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection(_HOST, self._ports[1], timeout=2)
        try:
            connection.request("GET", "/v2")
            # Another server may have taken the port while ours is still loading its models.
            if json.load(connection.getresponse()).get("name") != self._server_id:
                return False
            connection.request("GET", "/v2/health/ready")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException, ValueError, AttributeError):
            return False
        finally:
            connection.close()


class _PortTakenError(EmbeddedTritonError):
    pass


def sweep_shared_memory() -> None:
    """Remove the shared memory of runs of which no process is left, such as those killed with SIGKILL.

    A run's every process holds a lock on its file, so neither a reused process id nor another container
    that shares the memory can be mistaken for it.
    """
    for path in _SHARED_MEMORY.glob("visiongate_*.lock"):
        try:
            file = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:  # gone by now, or another user's
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for left in _SHARED_MEMORY.glob(f"{path.stem}*"):
                if left != path:
                    left.unlink(missing_ok=True)
            path.unlink(missing_ok=True)  # last: without it nobody would find the rest
        except OSError:  # locked: alive
            continue
        finally:
            os.close(file)


def _claim_shared_memory_prefix() -> tuple[int, str]:
    """Return a new prefix for a run's shared memory, and the locked file that says that the run is alive."""
    while True:
        prefix = f"visiongate_{os.getpid()}_{secrets.token_hex(4)}"
        file = os.open(_SHARED_MEMORY / f"{prefix}.lock", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            continue
        if os.fstat(file).st_nlink:
            return file, prefix
        os.close(file)  # swept between its creation and the lock


def _fill_ports(ports: tuple[int, int, int]) -> tuple[int, int, int]:
    """Replace each 0 by a port that is free now."""
    sockets = [socket.create_server((_HOST, 0)) for _ in ports]
    free = [taken.getsockname()[1] for taken in sockets]
    for taken in sockets:
        taken.close()
    grpc_port, http_port, metrics_port = (port or other for port, other in zip(ports, free, strict=True))
    return grpc_port, http_port, metrics_port


def _check_free(port: int) -> None:
    try:
        socket.create_server((_HOST, port)).close()
    except OSError as error:
        raise EmbeddedTritonError(f"Port {port} on {_HOST} cannot be used: {error.strerror}.") from None


def _are_complete(repository: Path) -> bool:
    """Tell whether every model's configuration names its inputs and outputs."""
    for model in repository.iterdir():
        config = model_config_pb2.ModelConfig()
        try:
            text_format.Parse((model / "config.pbtxt").read_text(), config)
        except NotADirectoryError:
            continue
        except (OSError, text_format.ParseError):  # Triton says what is wrong with it
            return False
        if not (config.input and config.output):
            return False
    return True


def _plain_path(repository: Path) -> Path:
    """Return the repository's path, through a link without spaces and quotes where it has some.

    Triton starts its Python processes through a shell and quotes nothing; one that finds its arguments
    shifted dies, and Triton waits for it for ever.
    """
    repository = repository.absolute()
    if is_plain(repository):
        return repository
    cache = cache_directory()
    link = cache / "repositories" / hashlib.sha256(os.fsencode(repository)).hexdigest()[:16]
    link.parent.mkdir(exist_ok=True)
    if not link.is_symlink():
        with contextlib.suppress(FileExistsError):
            link.symlink_to(repository)
    return link

"""A real Triton as a child process: started on loopback ports, watched, and never left behind."""

import asyncio
import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from gateway.embedded import repository, shared_memory
from gateway.embedded.environment import (
    Progress,
    ensure_backends,
    ensure_environment,
    process_environment,
    triton_folder,
)
from gateway.embedded.error import EmbeddedTritonError
from gateway.embedded.server_log import ServerLog, explanation
from gateway.ports import check_free

_HOST = "127.0.0.1"
_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_STOP_GRACE_S = 10
_POLL_S = 0.05
# Triton logs it once all requests are answered. Then it unloads the models one by one, which takes seconds.
_REQUESTS_DONE = "All models are stopped, unloading models"
# How often the user is told that Triton is loading: large models take minutes.
_PROGRESS_EVERY_S = 20
_MAX_PORT_ATTEMPTS = 5
_PORT_OPTIONS = ("--grpc-port", "--http-port", "--metrics-port")
# The time that the supervisor has to end all processes.
_KILL_S = 10


def _silent(_: str) -> None:
    pass


class EmbeddedTriton:
    """Triton from pip, serving a model repository until the `with` block or this process ends.

    Without model control it serves every model that can be served, and tells `progress` which ones cannot.
    Every port is bound to loopback; port 0 picks a free one. `log` gets the server's log line by line, in
    another thread; `progress` gets what the user waits for. A supervisor process ends Triton and its Python
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
        start_timeout_s: float = 900,
        extra_arguments: Sequence[str] = (),
        log: Callable[[str], None] | None = None,
        progress: Progress = _silent,
    ) -> None:
        self._repository = repository
        # The path by which Triton gets the repository, and whether all configurations there are complete.
        self._served, self._is_complete = repository, False
        self._requested_ports = (grpc_port, http_port, metrics_port)
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
        """Start Triton, and return when all its models are ready; raise EmbeddedTritonError if it fails."""
        if self._supervisor is not None:
            raise EmbeddedTritonError("Triton is already started.")
        # The quick checks come first: preparing the environment can take minutes.
        self._read_repository()
        for port, option in zip(self._requested_ports, _PORT_OPTIONS, strict=True):
            check_free(_HOST, port, option)
        shared_memory.sweep()
        shared_memory.check(self._progress)
        environment = ensure_environment(self._progress)
        backends = ensure_backends(environment)
        deadline = time.monotonic() + self._start_timeout_s
        for attempt in range(_MAX_PORT_ATTEMPTS):
            self._ports = _fill_ports(self._requested_ports)
            try:
                self._launch(environment, backends)
                self._wait_until_ready(deadline)
            except _PortTakenError:
                # Another program took a free port before Triton bound it.
                self._kill()
                if attempt == _MAX_PORT_ATTEMPTS - 1:
                    raise
            except BaseException:
                self._kill()
                raise
            else:
                return

    def stop(self) -> None:
        """Stop Triton; requests in progress have 10 seconds to finish. Do nothing if it is not started."""
        if self._supervisor is None:
            return
        try:
            self._supervisor.terminate()
            deadline = time.monotonic() + _STOP_GRACE_S + 5
            while self._supervisor.poll() is None and time.monotonic() < deadline:
                if self._log is not None and self._log.has(_REQUESTS_DONE):
                    break
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._supervisor.wait(_POLL_S)
        finally:
            self._kill()

    def _kill(self) -> None:
        """Stop Triton immediately: nobody waits for its answers."""
        if self._supervisor is None:
            return
        deadline = time.monotonic() + _KILL_S
        while self._supervisor.poll() is None:
            if time.monotonic() > deadline:
                self._supervisor.kill()  # and then the kernel kills tritonserver
            else:
                self._supervisor.terminate()  # the second SIGTERM allows no time to finish
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._supervisor.wait(_POLL_S)
        if self._log is not None:
            self._log.close(timeout_s=5)
        self._supervisor = self._log = None

    async def death(self) -> None:
        """Wait until Triton has died, and raise an error with its last words."""
        while self.poll() is None:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        raise EmbeddedTritonError(f"Triton died with exit code {self.poll()}: {self.explanation()}")

    def poll(self) -> int | None:
        """Return None while Triton runs, then its exit status: 128 + N for signal N."""
        return self._running().poll()

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait until Triton has ended and return its exit status; raise TimeoutError if it still runs."""
        try:
            return self._running().wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"Triton still runs after {timeout_s} s.") from None

    def explanation(self) -> str:
        """Return the lines of Triton's log that say what went wrong last."""
        if self.poll() is not None and self._log is not None:
            self._log.close(timeout_s=5)
        words = explanation(self._log.lines()) if self._log is not None else ""
        return words.replace(str(self._served), str(self._repository))

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

    def _read_repository(self) -> None:
        models = repository.read_models(self._repository, may_be_empty=self._model_control != "none")
        if self._model_control != "none":
            # Models that are missing or incomplete now may come later.
            self._served = repository.linked(self._repository)
        else:
            self._served = repository.servable(self._repository, models)
            if faults := repository.faults_of(models):
                self._progress(f"not served: {faults}")
        self._is_complete = all(model.is_complete for model in models if model.versions)

    def _launch(self, environment: Path, backends: Path) -> None:
        lock, self._server_id = shared_memory.claim()
        try:
            # Without preexec_fn Python uses vfork: a fork in a process that runs gRPC may hang.
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
                # The embedded interpreters import modules from the working directory first.
                cwd=backends,
                env=process_environment(environment),
                pass_fds=(lock,),
                start_new_session=True,  # this process handles Ctrl-C
            )
        finally:
            os.close(lock)
        assert self._supervisor.stdout is not None
        assert self._supervisor.stderr is not None
        self._log = ServerLog(self._supervisor.stderr, self._forward_log)
        with self._supervisor.stdout as stdout:
            self._pid = int(stdout.readline() or 0)

    def _command(self, environment: Path, backends: Path) -> list[str]:
        triton = triton_folder(environment)
        grpc_port, http_port, metrics_port = self._ports
        return [
            str(triton / "bin" / "tritonserver"),
            f"--id={self._server_id}",
            f"--model-repository={self._served}",
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
            # Completion starts and ends a Python process for each model, which takes about a second each.
            *(["--disable-auto-complete-config"] if self._is_complete else []),
            *self._extra_arguments,
        ]

    def _wait_until_ready(self, deadline: float) -> None:
        assert self._log is not None
        start = time.monotonic()
        next_progress = start + _PROGRESS_EVERY_S
        while not self._is_ready():
            status = self.poll()
            if status is not None:
                message = self.explanation()
                kind = _PortTakenError if "already in use" in message else EmbeddedTritonError
                raise kind(f"Triton did not start (exit status {status}):\n{message}")
            if time.monotonic() > deadline:
                raise EmbeddedTritonError(
                    f"Triton was not ready within {self._start_timeout_s:g} s; its log ends:\n"
                    + self.explanation()
                )
            if time.monotonic() > next_progress:
                self._progress(f"Triton is loading the models: {time.monotonic() - start:.0f} s so far")
                next_progress += _PROGRESS_EVERY_S
            time.sleep(_POLL_S)

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection(_HOST, self._ports[1], timeout=2)
        try:
            connection.request("GET", "/v2")
            # Another server may have taken the port while this one is still loading its models.
            if json.load(connection.getresponse()).get("name") != self._server_id:
                return False
            connection.request("GET", "/v2/health/ready")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException, ValueError, AttributeError):
            return False
        finally:
            connection.close()


class _PortTakenError(EmbeddedTritonError):
    """Another program listens on one of the ports."""


def _fill_ports(ports: tuple[int, int, int]) -> tuple[int, int, int]:
    """Replace each 0 by a port that is free now."""
    # All are open at a time, so that no two get the same port.
    sockets = [socket.create_server((_HOST, 0)) for _ in ports]
    free_ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    grpc_port, http_port, metrics_port = (
        port or free_port for port, free_port in zip(ports, free_ports, strict=True)
    )
    return grpc_port, http_port, metrics_port

"""A real Triton as a child process: started on an address, watched, and never left behind."""

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from gateway.commands.gpus import Gpus
from gateway.embedded import gpu_repository, repository, runs, shared_memory
from gateway.embedded import gpus as gpus_of_machine
from gateway.embedded.environment import (
    FOR_CPU,
    FOR_GPU,
    Progress,
    ensure_backends,
    ensure_environment,
    process_environment,
)
from gateway.embedded.error import EmbeddedTritonError, ending_of
from gateway.embedded.listening import LOOPBACK, Listening, Ports
from gateway.embedded.server_command import STOP_GRACE_S, ModelControl, ServerCommand
from gateway.embedded.server_log import ServerLog, explanation, for_operator, last_words, still_loading

_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_POLL_S = 0.05
# Triton logs it once all requests are answered. Then it unloads the models one by one, which takes seconds.
_REQUESTS_DONE = "All models are stopped, unloading models"
# How often the user is told that Triton is loading: large models take minutes.
_PROGRESS_EVERY_S = 20
_MAX_PORT_ATTEMPTS = 5
# The time that the supervisor has to end all processes.
_KILL_S = 10


class EmbeddedTriton:
    """Triton from pip, serving a model repository until the `with` block or this process ends.

    Without model control it serves every model that can be served, and tells `progress` which ones cannot.
    With `gpus` the models of ONNX Runtime run on those, and nothing starts where they cannot.
    Every port is bound to `host`, a name or an IP address; port 0 picks a free one. Triton has no keys and no
    TLS: who reaches the ports may use it. `log` gets the server's log line by line, in another thread;
    `progress` gets what the user waits for. A supervisor process ends Triton and its Python processes when
    this process dies, even by SIGKILL.
    """

    def __init__(
        self,
        repository: Path,
        *,
        host: str = LOOPBACK,
        grpc_port: int = 0,
        http_port: int = 0,
        metrics_port: int = 0,
        model_control: ModelControl = "none",
        gpus: Gpus | None = None,
        start_timeout_s: float = 900,
        extra_arguments: Sequence[str] = (),
        log: Callable[[str], None] | None = None,
        progress: Progress = lambda _: None,
    ) -> None:
        self._repository = repository
        # The path by which Triton gets the repository.
        self._served = repository
        self._host = host
        self._requested_ports = (grpc_port, http_port, metrics_port)
        self._model_control = model_control
        self._gpus = gpus
        self._start_timeout_s = start_timeout_s
        self._extra_arguments = tuple(extra_arguments)
        self._forward_log = log
        self._progress = progress
        self._supervisor: subprocess.Popen[str] | None = None
        self._log: ServerLog | None = None
        self._pid = 0
        self._listening = Listening(LOOPBACK, (0, 0, 0))
        # The environment and the backends, once they are there.
        self._installed = (Path(), Path())
        self._run: runs.Run | None = None
        # Ends a start under way in a thread.
        self._is_cancelled = threading.Event()

    @property
    def grpc_address(self) -> str:
        """`IP:PORT` of the gRPC service."""
        return self._address(0)

    @property
    def http_address(self) -> str:
        """`IP:PORT` of the HTTP service."""
        return self._address(1)

    @property
    def metrics_address(self) -> str:
        """`IP:PORT` where Prometheus finds the metrics, at /metrics."""
        return self._address(2)

    @property
    def is_on_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        self._running()
        return self._listening.is_loopback

    @property
    def pid(self) -> int:
        """The process id of tritonserver, and of its process group."""
        self._running()
        return self._pid

    def start(self) -> None:
        """Start Triton, and return when all its models are ready; raise EmbeddedTritonError if it fails."""
        if self._supervisor is not None:
            raise EmbeddedTritonError("Triton is already started.")
        self._is_cancelled.clear()
        # The quick checks come first: preparing the environment can take minutes.
        models = self._check(self._requested_ports)
        environment = ensure_environment(self._progress, FOR_GPU if self._gpus else FOR_CPU)
        self._installed = environment, ensure_backends(environment)
        self._start(models, self._requested_ports)

    async def restart(self) -> None:
        """Start a Triton anew that has died, or that did not start, on the ports that it had.

        Raises what `start` raises. If cancelled, it ends what it has started.
        """
        self._is_cancelled.clear()
        start = asyncio.create_task(asyncio.to_thread(self._start_again))
        try:
            await asyncio.shield(start)
        except asyncio.CancelledError:
            self._is_cancelled.set()
            await asyncio.gather(start, return_exceptions=True)
            raise

    def _start_again(self) -> None:
        self.stop()
        ports = self._listening.ports
        self._start(self._check(ports), ports)

    def _check(self, ports: Ports) -> list[repository.Model]:
        """Read the repository, and raise what would keep Triton from starting."""
        models = repository.read_models(self._repository, may_be_empty=self._model_control != "none")
        if self._model_control == "none" and (faults := repository.faults_of(models)):
            self._progress(f"not served: {faults}")
        Listening.at(self._host, ports)
        if self._gpus:
            if self._model_control == "poll":
                raise EmbeddedTritonError(
                    "--gpu does not go with --model-control poll: it copies the configurations at the start."
                )
            self._gpus = gpus_of_machine.checked(self._gpus)
        runs.sweep()
        shared_memory.check(self._progress)
        return models

    def _start(self, models: list[repository.Model], ports: Ports) -> None:
        deadline = time.monotonic() + self._start_timeout_s
        for attempt in range(_MAX_PORT_ATTEMPTS):
            self._listening = Listening.at(self._host, ports)
            try:
                self._launch(models)
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
            deadline = time.monotonic() + STOP_GRACE_S + 5
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
        self._close_log()
        self._supervisor = self._log = None

    async def death(self) -> str:
        """Wait until Triton has died, and say in one line how, with its last words."""
        while (status := self.poll()) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        words = await asyncio.to_thread(self._words, last_words)
        return f"Triton {ending_of(status)}; its last words: {words}"

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
        return self._words(explanation)

    def _words(self, choose: Callable[[list[str]], str]) -> str:
        if self.poll() is not None:
            self._close_log()
        words = choose(self._log.lines()) if self._log is not None else ""
        return words.replace(str(self._served), str(self._repository))

    def _close_log(self) -> None:
        """Read the rest of the log of a Triton that has ended."""
        if self._running().returncode < 0 and self._run is not None:
            # The supervisor was killed. What outlives it may write to the log.
            runs.end(self._run, _KILL_S)
        if self._log is not None:
            self._log.close(timeout_s=5)

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
        return self._listening.address(index)

    def _launch(self, models: list[repository.Model]) -> None:
        environment, backends = self._installed
        with runs.claim() as run:
            self._run = run
            self._served = self._servable(models, run.folder)
            command = ServerCommand(
                environment=environment,
                backends=backends,
                name=run.name,
                repository=self._served,
                model_control=self._model_control,
                listening=self._listening,
                is_complete=all(model.is_complete for model in models if model.versions),
                extra_arguments=self._extra_arguments,
            )
            # Without preexec_fn Python uses vfork: a fork in a process that runs gRPC may hang.
            self._supervisor = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", str(_SUPERVISOR)),
                    *(str(os.getpid()), str(STOP_GRACE_S), str(run.memory), str(run.folder)),
                    *command.arguments(),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                # The embedded interpreters import modules from the working directory first.
                cwd=run.folder,
                env={
                    **process_environment(environment),
                    "TMPDIR": str(run.folder),
                    # Triton would start an instance for each GPU that it sees, all of them on the CPU.
                    **({} if self._gpus else {"CUDA_VISIBLE_DEVICES": ""}),
                },
                pass_fds=run.locks,
                start_new_session=True,  # this process handles Ctrl-C
            )
        assert self._supervisor.stdout is not None
        assert self._supervisor.stderr is not None
        self._log = ServerLog(self._supervisor.stderr, self._forward_log)
        with self._supervisor.stdout as stdout:
            self._pid = int(stdout.readline() or 0)

    def _servable(self, models: list[repository.Model], folder: Path) -> Path:
        """Return the path by which Triton gets the repository, which may be a folder of links in `folder`."""
        # Models that are missing or incomplete now may come later where Triton is told what to load.
        whole = self._model_control != "none"
        if self._gpus:
            return gpu_repository.make(models, self._gpus, folder, whole=whole)
        if whole:
            return repository.linked(self._repository, folder)
        return repository.servable(self._repository, models, folder)

    def _wait_until_ready(self, deadline: float) -> None:
        assert self._log is not None
        assert self._run is not None
        start = time.monotonic()
        next_progress = start + _PROGRESS_EVERY_S
        while not self._listening.is_ready(self._run.name):
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
                names = ", ".join(still_loading(self._log.lines())) or "the models"
                self._progress(
                    f"Triton is loading {names}, and warming up: {time.monotonic() - start:.0f} s so far"
                )
                next_progress += _PROGRESS_EVERY_S
            if self._is_cancelled.wait(_POLL_S):
                raise EmbeddedTritonError("The start of Triton was cancelled.")
        for sentence in for_operator(self._log.lines()):
            self._progress(sentence)


class _PortTakenError(EmbeddedTritonError):
    """Another program listens on one of the ports."""

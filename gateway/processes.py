"""Several gateway processes on one port. A parent starts, watches and ends them, and answers no calls itself.

Each process is a `worker.py`. A process that falls silent is replaced: the kernel would go on giving it
connections.
"""

import asyncio
import contextlib
import json
import logging
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gateway import ports
from gateway.connections import raise_descriptor_limit
from gateway.heartbeat import INTERVAL_S, MAX_SILENCE_S, Heartbeat
from gateway.image_ids import secret_of
from gateway.readiness import set_unready
from gateway.services.registry import SERVICES
from gateway.settings import Settings
from gateway.status_server import StatusServer
from gateway.stopping import StopSignals, until_first
from gateway.worker import first_line, max_end_s
from gateway.worker_metrics import Reason, WorkerMetrics
from visiongate.command_error import CommandError

logger = logging.getLogger(__name__)

# The pause before a process is replaced. It doubles each time, until a process has lived for STEADY_S.
FIRST_PAUSE_S, MAX_PAUSE_S = 0.5, 30.0
STEADY_S = 60.0
# The first line of a process's report has all its metrics: about 100 KB.
MAX_LINE_BYTES = 16 << 20


class ProcessesError(CommandError):
    """No process could start. The message is for the operator."""


@dataclass(frozen=True, slots=True)
class _End:
    """Why a process ended, for the metrics and in words."""

    reason: Reason
    words: str


async def serve_with_processes(
    settings: Settings, started: Callable[[Settings, str], None], stop: StopSignals
) -> None:
    """Run settings.processes gateways until a signal asks to stop. Calls in flight may then finish.

    `started` is called with the settings, in which the ports are those in use, and the models, as soon as the
    first process answers.
    """
    raise_descriptor_limit()
    with contextlib.ExitStack() as stack:
        taken = {"port": stack.enter_context(ports.reserved(settings.host, settings.port, "--port"))}
        if settings.http_port is not None:
            http = ports.reserved(settings.http_host, settings.http_port, "--http-port")
            taken["http_port"] = stack.enter_context(http)
        settings = settings.model_copy(update=taken)
        heartbeat = Heartbeat()
        processes = _Processes(settings, started, stop)
        set_unready(SERVICES)
        with StatusServer(settings, heartbeat, processes.metrics.registry):
            async with heartbeat.beating():
                await until_first(
                    *(processes.keep(number) for number in range(1, settings.processes + 1)),
                    stop.first.wait(),
                )


class _Processes:
    """Keeps the processes running. `metrics` are theirs."""

    def __init__(
        self, settings: Settings, started: Callable[[Settings, str], None], stop: StopSignals
    ) -> None:
        self.metrics = WorkerMetrics(settings.processes)
        self._settings = settings
        self._started = started
        self._stop = stop
        # An image id of one process is good at all of them, also at those that start later.
        secret = secret_of(settings.image_id_secret)
        # The parent serves the metrics.
        own = settings.model_copy(update={"metrics_port": None})
        self._first_line = first_line(own, secret)
        self._has_answered = False
        # The numbers of the processes that ended before any has answered.
        self._failed: set[int] = set()

    async def keep(self, number: int) -> None:
        """Keep a process running until cancelled. Raise ProcessesError if no process at all can start."""
        pause_s = FIRST_PAUSE_S
        while True:
            start = time.monotonic()
            end = await self._run(number)
            if self._stop.first.is_set():
                return  # systemd stops the parent and its processes at the same time
            if not self._has_answered:
                self._failed.add(number)
                if len(self._failed) == self._settings.processes:
                    raise ProcessesError(end.words)
            if time.monotonic() - start > STEADY_S:
                pause_s = FIRST_PAUSE_S
            self.metrics.restarted(end.reason)
            logger.warning(
                "worker process %d: %s; a new one starts in %g seconds", number, end.words, pause_s
            )
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, MAX_PAUSE_S)

    async def _run(self, number: int) -> _End:
        """Run a process to its end, and say why it ended. When cancelled, end the process in good order."""
        try:
            process = await asyncio.create_subprocess_exec(
                # -P: a folder `gateway` in the working directory must not be imported in place of this one.
                *(sys.executable, "-P", "-m", "gateway.worker"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=MAX_LINE_BYTES,
                # Not in the terminal's process group: the parent handles Ctrl-C.
                start_new_session=True,
            )
        except OSError as error:  # for instance, too little memory
            return _End("exit", f"a process cannot be started: {error.strerror}")
        assert process.stdin is not None
        self.metrics.born(number, process.pid)
        logger.info("worker process %d starts: process id %d", number, process.pid)
        report: dict[str, Any] = {}
        # It goes on while the process stops: calls that end meanwhile count.
        following = asyncio.create_task(self._follow(number, process, report))
        try:
            # Not as an argument, which other users of the machine can read.
            process.stdin.write(self._first_line)
            if not await asyncio.shield(following):
                process.kill()
                return _End("silent", f"process id {process.pid} stood still for {MAX_SILENCE_S:g} seconds")
            return _ending(process.pid, await process.wait(), report.get("error"))
        finally:
            process.stdin.close()
            if not report and process.returncode is None:
                process.terminate()  # it is still importing, which takes seconds
            await until_first(
                process.wait(),
                self._stop.second.wait(),
                asyncio.sleep(max_end_s(self._settings)),
            )
            if process.returncode is None:
                logger.warning(
                    "worker process %d: process id %d has not ended, and is killed", number, process.pid
                )
                process.kill()
                await process.wait()
            await following
            self.metrics.died(number)

    async def _follow(self, number: int, process: Process, report: dict[str, Any]) -> bool:
        """Add to `report` what a process reports. Return whether it spoke until its end."""
        assert process.stdout is not None
        while True:
            # Before its first word it imports modules, which may take long.
            line = await _line(process.stdout, MAX_SILENCE_S if report else None)
            if line is None:
                # If the machine was asleep, this process woke up first.
                line = await _line(process.stdout, 3 * INTERVAL_S)
            if line is None:
                return False
            if not line:
                return True
            message = json.loads(line)
            self.metrics.update(number, message.pop("metrics"))
            report.update(message)
            if "served" in message:
                self.metrics.answers(number)
                logger.info("worker process %d answers: process id %d", number, process.pid)
                if not self._has_answered:
                    self._has_answered = True
                    self._started(self._settings, message["served"])


async def _line(stream: asyncio.StreamReader, seconds: float | None) -> bytes | None:
    """Return the next line, empty at the end, or None if none comes in time."""
    try:
        async with asyncio.timeout(seconds):
            line = await stream.readline()
    except TimeoutError:
        return None
    # The end of a process that was killed may be half a line.
    return line if line.endswith(b"\n") else b""


def _ending(pid: int, code: int, error: str | None) -> _End:
    if code < 0:
        return _End("signal", f"process id {pid} was ended by {signal.Signals(-code).name}")
    return _End("exit", error or f"process id {pid} ended with exit code {code}")

"""Several gateway processes on one port. A parent starts, watches and ends them, and answers no calls itself.

Each process runs `python -m gateway.processes`. The parent writes the settings to its standard input, as a
line of JSON, and keeps that open: its end asks the process to stop, also if the parent was killed. On
standard output the process reports, in lines of JSON, that its event loop runs, and that it answers or why it
cannot. A process that falls silent is replaced: the kernel would go on giving it connections.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gateway import logs, metrics, ports
from gateway.connections import raise_descriptor_limit
from gateway.heartbeat import INTERVAL_S, MAX_SILENCE_S, Heartbeat
from gateway.image_ids import new_secret, write_secret
from gateway.process import serve
from gateway.server import Gateway
from gateway.settings import Settings
from gateway.status_server import StatusServer
from gateway.stopping import StopSignals, until_first
from visiongate.command_error import CommandError

logger = logging.getLogger(__name__)

# The pause before a process is replaced. It doubles each time, until a process has lived for STEADY_S.
FIRST_PAUSE_S, MAX_PAUSE_S = 0.5, 30.0
STEADY_S = 60.0
# Time to end that a process may take beyond drain_s and grace_s.
END_MARGIN_S = 5.0


class ProcessesError(CommandError):
    """No process could start. The message is for the operator."""


async def serve_with_processes(
    settings: Settings, started: Callable[[int, str], None], stop: StopSignals
) -> None:
    """Run settings.processes gateways until a signal asks to stop. Calls in flight may then finish.

    `started` is called with the port and the models as soon as the first process answers.
    """
    raise_descriptor_limit()
    with (
        # The processes write their metrics there, and the parent adds them up.
        tempfile.TemporaryDirectory(prefix="visiongate-") as folder,
        ports.reserved(settings.host, settings.port, "--port") as port,
    ):
        variables = metrics.add_up(folder)
        heartbeat = Heartbeat()
        with StatusServer(settings, heartbeat):
            async with heartbeat.beating():
                processes = _Processes(settings, port, started, stop, variables, Path(folder))
                await until_first(
                    *(processes.keep(number) for number in range(1, settings.processes + 1)),
                    stop.first.wait(),
                )


class _Processes:
    """Keeps the processes running."""

    def __init__(
        self,
        settings: Settings,
        port: int,
        started: Callable[[int, str], None],
        stop: StopSignals,
        variables: Mapping[str, str],
        folder: Path,
    ) -> None:
        self._settings = settings
        self._port = port
        self._started = started
        self._stop = stop
        self._variables = variables
        # An image id of one process is good at all of them, also at those that start later.
        self._secret = new_secret()
        self._secret_file = settings.image_id_secret or folder / "image_id_secret"
        self._has_answered = False
        # The numbers of the processes that ended before any has answered.
        self._failed: set[int] = set()

    async def keep(self, number: int) -> None:
        """Keep a process running until cancelled. Raise ProcessesError if no process at all can start."""
        pause_s = FIRST_PAUSE_S
        while True:
            start = time.monotonic()
            reason = await self._run(number)
            if self._stop.first.is_set():
                return  # systemd stops the parent and its processes at the same time
            if not self._has_answered:
                self._failed.add(number)
                if len(self._failed) == self._settings.processes:
                    raise ProcessesError(reason)
            if time.monotonic() - start > STEADY_S:
                pause_s = FIRST_PAUSE_S
            logger.warning("worker process %d: %s; a new one starts in %g seconds", number, reason, pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, MAX_PAUSE_S)

    async def _run(self, number: int) -> str:
        """Run a process to its end, and say why it ended. When cancelled, end the process in good order."""
        try:
            if not self._settings.image_id_secret and not self._secret_file.exists():
                # Not only once: systemd cleans temporary folders of what has not been read for days.
                write_secret(self._secret_file, self._secret)
            process = await asyncio.create_subprocess_exec(
                # -P: a folder `gateway` in the working directory must not be imported in place of this one.
                *(sys.executable, "-P", "-m", "gateway.processes"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, **self._variables},
                # Not in the terminal's process group: the parent handles Ctrl-C.
                start_new_session=True,
            )
        except OSError as error:  # for instance, too little memory
            return f"a process cannot be started: {error.strerror}"
        assert process.stdin is not None
        assert process.stdout is not None
        report: dict[str, Any] = {}
        try:
            # The parent serves the metrics.
            changed = {"port": self._port, "metrics_port": None, "image_id_secret": self._secret_file}
            own = self._settings.model_copy(update=changed)
            # Not as an argument, which other users of the machine can read.
            process.stdin.write(own.model_dump_json().encode() + b"\n")
            if not await self._follow(number, process, report):
                process.kill()
                return f"process id {process.pid} stood still for {MAX_SILENCE_S:g} seconds"
            code = await process.wait()
            return report.get("error") or _ending(process.pid, code)
        finally:
            process.stdin.close()
            if not report and process.returncode is None:
                process.terminate()  # it is still importing, which takes seconds
            await until_first(
                process.wait(),
                self._stop.second.wait(),
                asyncio.sleep(_max_end_s(self._settings)),
            )
            if process.returncode is None:
                process.kill()
                await process.wait()
            metrics.forget_worker(process.pid)

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
            message = json.loads(line or "{}")
            report.update(message)
            if "served" in message:
                logger.info("worker process %d answers: process id %d", number, process.pid)
                if not self._has_answered:
                    self._has_answered = True
                    self._started(self._port, message["served"])
            if not line:
                return True


async def _line(stream: asyncio.StreamReader, seconds: float | None) -> bytes | None:
    """Return the next line, empty at the end, or None if none comes in time."""
    try:
        async with asyncio.timeout(seconds):
            return await stream.readline()
    except TimeoutError:
        return None


def _ending(pid: int, code: int) -> str:
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return f"process id {pid} {how}"


def _max_end_s(settings: Settings) -> float:
    return settings.drain_s + settings.grace_s + END_MARGIN_S


def main() -> None:
    """Run one of the processes."""
    # Standard output is for the report alone: what a library prints goes to standard error.
    report = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    settings = Settings.model_validate_json(_first_line(sys.stdin.fileno()))
    logs.configure(settings)

    def tell(**message: Any) -> None:
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(message), file=report, flush=True)

    async def work() -> None:
        with StopSignals() as stop:
            arguments = asyncio.get_running_loop(), stop, _max_end_s(settings)
            threading.Thread(target=_watch_parent, args=arguments, daemon=True).start()
            await serve(settings, started, stop, Heartbeat(lambda: tell(alive=True)))

    def started(gateway: Gateway) -> None:
        tell(served=gateway.served)

    try:
        asyncio.run(work())
    except (CommandError, OSError, ValueError) as error:
        tell(error=str(error))
        sys.exit(1)


def _first_line(file: int) -> bytes:
    """Read a line without a buffer: Python crashes at its end if a thread then waits inside `sys.stdin`."""
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(file, 1 << 16)
        if not part:  # the parent has gone
            sys.exit(1)
        line += part
    return line


def _watch_parent(loop: asyncio.AbstractEventLoop, stop: StopSignals, max_end_s: float) -> None:
    """Wait until the parent closes standard input, or dies, when the kernel closes it. Then ask to stop.

    That counts as a first signal, never as a second: systemd sends SIGTERM to the parent and its processes.
    """
    while os.read(sys.stdin.fileno(), 1):
        pass
    with contextlib.suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(stop.first.set)
    time.sleep(max_end_s)
    os._exit(1)  # the loop hangs, and nobody else is left to end the process


if __name__ == "__main__":
    main()

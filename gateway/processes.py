"""Several gateway processes on one port: started, watched and ended by a parent that answers no calls.

Each process runs `python -m gateway.processes`. The parent writes the settings to its standard input, as a
line of JSON, and keeps that open: its end asks the process to stop, also if the parent was killed. On
standard output the process reports, in a line of JSON, that it answers or why it cannot.
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
from collections.abc import Callable, Mapping
from typing import Any

from gateway import logs, metrics, ports
from gateway.process import serve
from gateway.server import Gateway
from gateway.settings import Settings
from gateway.status_server import StatusServer
from gateway.stopping import StopSignals, until_first
from visiongate.command_error import CommandError

logger = logging.getLogger(__name__)

# Before a worker is replaced: twice as long each time, until one has lived long enough to be steady.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
STEADY_S = 60.0
# What a worker may take to end beyond its settings' time.
END_MARGIN_S = 5.0


class ProcessesError(CommandError):
    """No worker could start; the message is for the operator."""


async def serve_with_processes(
    settings: Settings, started: Callable[[int, str], None], stop: StopSignals
) -> None:
    """Runs settings.processes gateways until told to stop; calls in flight may then finish.

    `started` is told the port and the models once the first of them answers.
    """
    with (
        # For the workers' metrics, which write there, and for the parent's, which adds them up.
        tempfile.TemporaryDirectory(prefix="visiongate-metrics-") as folder,
        ports.reserved(settings.host, settings.port, "--port") as port,
    ):
        variables = metrics.add_up(folder)
        with StatusServer(settings):
            processes = _Processes(settings, port, started, stop, variables)
            await until_first(
                *(processes.keep(number) for number in range(1, settings.processes + 1)), stop.first.wait()
            )


class _Processes:
    def __init__(
        self,
        settings: Settings,
        port: int,
        started: Callable[[int, str], None],
        stop: StopSignals,
        variables: Mapping[str, str],
    ) -> None:
        self._settings = settings
        self._port = port
        self._started = started
        self._stop = stop
        self._variables = variables
        self._has_answered = False
        # The numbers of those that ended before any has answered.
        self._failed: set[int] = set()

    async def keep(self, number: int) -> None:
        """Keeps a worker running until cancelled. Raises ProcessesError where none at all gets up."""
        pause_s = FIRST_PAUSE_S
        while True:
            start = time.monotonic()
            reason = await self._run(number)
            if self._stop.first.is_set():
                return  # systemd stops parent and workers at the same time
            if not self._has_answered:
                self._failed.add(number)
                if len(self._failed) == self._settings.processes:
                    raise ProcessesError(reason)
            if time.monotonic() - start > STEADY_S:
                pause_s = FIRST_PAUSE_S
            logger.warning("worker %d: %s; a new one starts in %g seconds", number, reason, pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _run(self, number: int) -> str:
        """Runs a worker to its end, and says why it ended. Cancelled, it ends the worker in good order."""
        try:
            process = await asyncio.create_subprocess_exec(
                # -P: a folder `gateway` where the command was given is not to be taken for this one.
                *(sys.executable, "-P", "-m", "gateway.processes"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, **self._variables},
                # Out of the terminal's process group: Ctrl-C is the parent's to handle.
                start_new_session=True,
            )
        except OSError as error:  # such as for lack of memory
            return f"a process cannot be started: {error.strerror}"
        assert process.stdin is not None
        assert process.stdout is not None
        report: dict[str, str] = {}
        try:
            # Metrics are the parent's to show. On standard input, as other users can read arguments.
            own = self._settings.model_copy(update={"port": self._port, "metrics_port": None})
            process.stdin.write(own.model_dump_json().encode() + b"\n")
            report = json.loads(await process.stdout.readline() or "{}")
            if "served" in report:
                logger.info("worker %d answers: process %d", number, process.pid)
                if not self._has_answered:
                    self._has_answered = True
                    self._started(self._port, report["served"])
            code = await process.wait()
            return report.get("error") or _ending(process.pid, code)
        finally:
            process.stdin.close()
            if not report and process.returncode is None:
                process.terminate()  # it would go on with its imports, which take seconds
            await until_first(
                process.wait(),
                self._stop.second.wait(),
                asyncio.sleep(_longest_end(self._settings)),
            )
            if process.returncode is None:
                process.kill()
                await process.wait()
            metrics.forget_worker(process.pid)


def _ending(pid: int, code: int) -> str:
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return f"process {pid} {how}"


def _longest_end(settings: Settings) -> float:
    return settings.drain_s + settings.grace_s + END_MARGIN_S


def main() -> None:
    """A worker."""
    # Standard output is for the report alone, whatever a library prints.
    report = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    settings = Settings.model_validate_json(_first_line(sys.stdin.fileno()))
    logs.configure(settings)

    def tell(**message: Any) -> None:
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(message), file=report, flush=True)

    async def work() -> None:
        with StopSignals() as stop:
            arguments = asyncio.get_running_loop(), stop, _longest_end(settings)
            threading.Thread(target=_watch_parent, args=arguments, daemon=True).start()
            await serve(settings, started, stop)

    def started(gateway: Gateway) -> None:
        tell(served=gateway.served)

    try:
        asyncio.run(work())
    except (CommandError, OSError, ValueError) as error:
        tell(error=str(error))
        sys.exit(1)


def _first_line(file: int) -> bytes:
    """Unbuffered: a thread that waits inside of `sys.stdin` at the end of Python is fatal."""
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(file, 1 << 16)
        if not part:  # the parent has gone
            sys.exit(1)
        line += part
    return line


def _watch_parent(loop: asyncio.AbstractEventLoop, stop: StopSignals, longest_end_s: float) -> None:
    """Waits until the parent closes standard input, or has died: the kernel then does it.

    Asks for the same as the first signal, not for a second one: systemd sends SIGTERM to parent and workers.
    """
    while os.read(sys.stdin.fileno(), 1):
        pass
    with contextlib.suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(stop.first.set)
    time.sleep(longest_end_s)
    os._exit(1)  # the loop hangs: nobody else is left to end it


if __name__ == "__main__":
    main()

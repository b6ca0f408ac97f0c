"""One of several gateway processes on one port: `python -m gateway.worker`, which `processes.py` starts.

The parent writes a line of JSON to standard input, with the settings and the secret for image ids, and keeps
that open: its end asks the process to stop, also if the parent was killed. On standard output the process
reports, in lines of JSON: each second that its event loop runs, and which metrics have changed; once, that it
answers, or why it cannot.
"""

import asyncio
import contextlib
import json
import os
import sys
import threading
import time
from queue import SimpleQueue
from typing import Any

from gateway import logs
from gateway.heartbeat import Heartbeat
from gateway.process import serve
from gateway.settings import Settings
from gateway.stopping import StopSignals
from gateway.worker_metrics import changes
from visiongate.command_error import CommandError

# Time to end that a process may take beyond drain_s and grace_s.
END_MARGIN_S = 5.0
# Time that a parent which stands still may take to read the last report.
MAX_LAST_REPORT_S = 2.0


def max_end_s(settings: Settings) -> float:
    """Return the most seconds that a process may take to end, once it is asked to."""
    return settings.drain_s + settings.grace_s + END_MARGIN_S


def first_line(settings: Settings, image_id_secret: bytes) -> bytes:
    """Return what the parent writes at the start."""
    line = {"settings": settings.model_dump_json(), "image_id_secret": image_id_secret.hex()}
    return json.dumps(line).encode() + b"\n"


class Reporter:
    """Writes the report to a file descriptor, in a thread of its own.

    The event loop waits neither until the metrics are gathered nor for a parent that does not read.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        self._messages: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="report", daemon=True)
        self._thread.start()

    def tell(self, **message: Any) -> None:
        """Report something."""
        self._messages.put(message)

    def beat(self) -> None:
        """Report that the event loop runs, and the metrics. Does nothing while earlier reports wait."""
        if self._messages.empty():
            self.tell(alive=True)

    def close(self) -> None:
        """Report the metrics for the last time."""
        self.tell(last=True)
        self._thread.join(MAX_LAST_REPORT_S)

    def _write(self) -> None:
        message: dict[str, Any] = {}
        # Not a file object: Python crashes at its end if a thread then waits inside it.
        while "last" not in message:
            message = self._messages.get()
            line = memoryview(json.dumps({**message, "metrics": changes()}).encode() + b"\n")
            with contextlib.suppress(BrokenPipeError):
                while line:
                    line = line[os.write(self._file, line) :]


def main() -> None:
    """Run the process."""
    # Standard output is for the report alone: what a library prints goes to standard error.
    report = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    start = json.loads(_read_line(sys.stdin.fileno()))
    settings = Settings.model_validate_json(start["settings"])
    logs.configure(settings)
    reporter = Reporter(report)

    async def work() -> None:
        with StopSignals() as stop:
            arguments = asyncio.get_running_loop(), stop, max_end_s(settings)
            threading.Thread(target=_watch_parent, args=arguments, daemon=True).start()
            await serve(
                settings,
                lambda _, served: reporter.tell(served=served),
                stop,
                Heartbeat(reporter.beat),
                bytes.fromhex(start["image_id_secret"]),
            )

    try:
        asyncio.run(work())
    except (CommandError, OSError, ValueError) as error:
        reporter.tell(error=str(error))
        sys.exit(1)
    finally:
        reporter.close()


def _read_line(file: int) -> bytes:
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

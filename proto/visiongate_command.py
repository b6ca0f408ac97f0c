"""The entry point of the `visiongate` command, and the signals that end it.

This module is beside the package, because a module inside it would start with the package's own imports, and
signals must be handled before those.
"""

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], None]

# Ctrl-C, a supervisor's request, and a closed terminal (Windows does not have this one).
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


def main() -> None:
    """Run the command.

    Imports take a second or two, and nothing is under way yet: a signal ends the process at once and quietly.
    Process 1 of a container must handle signals, because the kernel ignores those without a handler.
    """
    handle_stop_signals(end_at_once)
    from visiongate import cli  # noqa: PLC0415

    cli.main()


def handle_stop_signals(handler: Handler) -> dict[int, Any]:
    """Call the handler for each signal that asks to stop. Return the earlier handlers by signal."""
    before = {}
    for number in STOP_SIGNALS:
        # A process that nohup starts ignores SIGHUP.
        if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
            before[number] = signal.signal(number, handler)
    return before


def end_at_once(number: int, _: FrameType | None) -> None:
    """End the process without a message, as the kernel does. The kernel alone would spare process 1."""
    os._exit(128 + number)

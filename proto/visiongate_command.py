"""The entry point of the `visiongate` command, and the signals that end it.

A module beside the package, because a module in it begins with the package's own imports, and signals are to
be handled before those.
"""

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], None]

# Ctrl-C, a supervisor's request, a terminal that was closed (which Windows has not).
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


def main() -> None:
    """Run the command.

    Imports take a second or two, and nothing is under way yet: a signal ends the process at once and quietly.
    Process 1 of a container must handle it: the kernel ignores signals to it that have no handler.
    """
    handle_stop_signals(end_at_once)
    from visiongate import cli  # noqa: PLC0415

    cli.main()


def handle_stop_signals(handler: Handler) -> dict[int, Any]:
    """Call the handler for each signal that asks to stop. Return the handlers of before, by signal."""
    before = {}
    for number in STOP_SIGNALS:
        # nohup ignores SIGHUP for what it starts.
        if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
            before[number] = signal.signal(number, handler)
    return before


def end_at_once(number: int, _: FrameType | None) -> None:
    """Handle a signal as the kernel does, without a word. Process 1 would survive that."""
    os._exit(128 + number)

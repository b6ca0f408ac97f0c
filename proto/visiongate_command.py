"""The entry point of the `visiongate` command, and the signals that end it.

This module is beside the package, because a module inside it would start with the package's own imports, and
signals must be handled before those.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
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
    if may_use_tls(sys.argv[1:], os.environ):
        # gRPC reads it when it is imported. Only its traces say whose TLS handshake has failed.
        os.environ.setdefault("GRPC_TRACE", "handshaker")
    from visiongate import cli  # noqa: PLC0415

    cli.main()


def may_use_tls(arguments: Sequence[str], environment: Iterable[str]) -> bool:
    """Return whether a command serves, perhaps over TLS. A file of settings, read later, may say so."""
    if not arguments or arguments[0] not in ("serve", "up"):
        return False
    words = [*arguments, *(name for name in environment if name.startswith("VISIONGATE_"))]
    return any("tls" in word.lower() or "config" in word.lower() for word in words)


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

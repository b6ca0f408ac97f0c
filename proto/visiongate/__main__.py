"""The entry point of the `visiongate` command: `visiongate` or `python -m visiongate`."""

import os
import signal
from types import FrameType


def _end(number: int, _: FrameType | None) -> None:
    os._exit(128 + number)


def main() -> None:
    """Run the command.

    Imports take a second or two, and nothing is under way yet: a signal ends the process at once and quietly.
    Process 1 of a container must handle it: the kernel ignores signals to it that have no handler.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    from visiongate import cli  # noqa: PLC0415

    cli.main()


if __name__ == "__main__":
    main()

"""The error that Triton from pip raises, and how people are told that a process ended."""

import signal

from visiongate.command_error import CommandError


class EmbeddedTritonError(CommandError):
    """Triton from pip cannot be installed, started or kept running here."""


def ending_of(status: int) -> str:
    """Say how a process ended: 128 + N is signal N, and -N that of a supervisor that was killed."""
    try:
        return f"was ended by {signal.Signals(-status if status < 0 else status - 128).name}"
    except ValueError:
        return f"ended with exit code {status}"

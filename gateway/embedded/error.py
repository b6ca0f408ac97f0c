"""The error that Triton from pip raises."""

from visiongate.command_error import CommandError


class EmbeddedTritonError(CommandError):
    """Triton from pip cannot be installed, started or kept running here."""

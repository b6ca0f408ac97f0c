"""How an export fails."""

from visiongate.command_error import CommandError


class ExportError(CommandError):
    """Carries one clear sentence for the person who ran the export."""


def first_line(error: Exception) -> str:
    """The part of another library's message that fits into such a sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]

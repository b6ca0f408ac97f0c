"""Errors of an export."""

from collections.abc import Callable
from typing import TypeVar

from visiongate.command_error import CommandError

Error = TypeVar("Error", bound=BaseException)


class ExportError(CommandError):
    """An error whose message is one clear sentence for the person who ran the export."""


def first_line(error: Exception) -> str:
    """Return the part of another library's message that fits into such a sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def cause(
    error: BaseException | None, kind: type[Error], fits: Callable[[Error], bool] = lambda _error: True
) -> Error | None:
    """Return the error, or the nearest of its causes, that is of a kind and fits; None if there is none.

    Libraries wrap the errors that they meet.
    """
    seen = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, kind) and fits(error):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None

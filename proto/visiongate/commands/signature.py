"""Options that many commands share, and that become one argument of the command's function."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import TypeVar

F = TypeVar("F", bound=Callable[..., None])


def with_options(command: Callable[..., None], options: Sequence[inspect.Parameter]) -> Callable[[F], F]:
    """Return a decorator for the function that typer runs in place of `command`, with values by name.

    Typer sees `command`, with these options instead of its first parameter.
    """
    _, *others = inspect.signature(command).parameters.values()
    parameters = [*others, *options]

    def decorate(run: F) -> F:
        functools.update_wrapper(run, command)
        # Typer reads both.
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate

"""Answers about several photos or texts: an item that cannot be used has an error, the others are printed."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer

from visiongate.commands.common import fail
from visiongate.errors import VisiongateError

# What an item is, "photo" or "text", and how the user named it.
Named = tuple[str, str]


def item_entries(
    items: Sequence[Named], results: Iterable[dict[str, Any]], errors: Mapping[int, VisiongateError]
) -> list[dict[str, Any]]:
    """Return JSON's entries: the name of each item with its result, or with its error."""
    return [
        {kind: name} | ({"error": str(errors[index])} if index in errors else result)
        for index, ((kind, name), result) in enumerate(zip(items, results, strict=True))
    ]


def end_with_errors(items: Sequence[Named], errors: Mapping[int, VisiongateError]) -> None:
    """Say on standard error what is wrong with which item, a line each, and end with exit code 1.

    Without errors this does nothing. It is to be called when the answer is printed.
    """
    for index, error in errors.items():
        fail(f"{items[index][1]}: {error}")
    if errors:
        raise typer.Exit(1)

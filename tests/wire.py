"""Requests that the client would not write: its own, changed."""

from dataclasses import replace
from typing import Any, TypeVar

from visiongate.operations import Operation

Result = TypeVar("Result")


def copied(operation: Operation[Result]) -> Operation[Result]:
    """The same with a request of its own."""
    request = type(operation.request)()
    request.CopyFrom(operation.request)
    return replace(operation, request=request)


def changed(operation: Operation[Result], fields: dict[str, Any]) -> Operation[Result]:
    """With other values in some fields, such as "query.min_score"."""
    made = copied(operation)
    for path, value in fields.items():
        *parents, name = path.split(".")
        message: Any = made.request
        for parent in parents:
            message = getattr(message, parent)
        setattr(message, name, value)
    return made


def repeated(operation: Operation[Result], field: str, count: int) -> Operation[Result]:
    """With the first item of a list that many times."""
    made = copied(operation)
    items = getattr(made.request, field)
    first = items[0]
    del items[1:]
    items.extend([first] * (count - 1))
    return made

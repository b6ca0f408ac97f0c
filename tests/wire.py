"""Requests that the client would not write: its own, changed. And how a server must refuse them."""

from dataclasses import replace
from typing import Any, TypeVar

import grpc
import pytest

from visiongate import AsyncClient, VisiongateError
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


async def assert_refused(client: AsyncClient, operation: Operation[Any], field: str, says: str) -> None:
    """The call is INVALID_ARGUMENT, names the field and says so."""
    with pytest.raises(VisiongateError) as caught:
        await client.call(operation)
    assert (caught.value.code, caught.value.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert says in caught.value.message

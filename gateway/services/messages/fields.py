"""Errors of inputs become errors of the request's fields here: pipelines do not know field names."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType

from google.rpc import status_pb2

from gateway import call
from gateway.errors import InputError

PathOf = Callable[[int | None], str]
"""The path of the input at a place of its list."""


class field(AbstractContextManager[None]):  # noqa: N801 - it reads as the function that it could be
    """Inside, an InputError (of this type) becomes an error of this field of the request."""

    __slots__ = ("_of", "_path")

    def __init__(self, path: str | PathOf, of: type[InputError] = InputError) -> None:
        self._path = path
        self._of = of

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, self._of):
            where = self._path if isinstance(self._path, str) else self._path(error.index)
            raise error.to_status_error(where) from error


def item_error(error: InputError, path: str) -> status_pb2.Status:
    """Return the error of one item of an answer, as a failed call would have it."""
    current = call.current()
    return error.to_status_error(path).to_message(current.request_id if current else "")

"""Errors of inputs become errors of the request's fields here: pipelines do not know field names."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from google.rpc import status_pb2

from gateway import call
from gateway.errors import InputError

PathOf = Callable[[int | None], str]
"""The path of the input at a place of its list."""


@contextmanager
def field(path: str | PathOf, of: type[InputError] = InputError) -> Iterator[None]:
    """Inside, an InputError (of this type) becomes an error of this field of the request."""
    try:
        yield
    except of as error:
        where = path if isinstance(path, str) else path(error.index)
        raise error.to_status_error(where) from error


def item_error(error: InputError, path: str) -> status_pb2.Status:
    """Return the error of one item of an answer, as a failed call would have it."""
    current = call.current()
    return error.to_status_error(path).to_message(current.request_id if current else "")

"""What routes share that speak another API's JSON: they read it, ask the gateway in its own words, and write.

A request becomes the tree of JSON that the API itself would take. So its reader checks it, and an error that
names a field of the API is given back with the caller's own name of it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import grpc
import orjson
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from gateway.errors import InvalidArgumentError
from gateway.http import json_text
from gateway.http.api import COPIES, JSON
from gateway.http.calls import Calls
from gateway.http.exchange import Exchange
from gateway.http.json_reader import read_message
from gateway.http.json_text import Tree
from gateway.http.statuses import CallError, HttpError
from gateway.services.registry import SERVICES

Names = Mapping[str, str]
"""The caller's names of fields, by the API's. A name stands for all that is below it."""

_METHODS = {
    method.name: method
    for service in SERVICES
    for descriptor in service.file.services_by_name.values()
    for method in descriptor.methods
}


async def read_object(exchange: Exchange) -> dict[str, Tree]:
    """Return the object that a request's body is, without fields that are null.

    Raises HttpError for another type of body, and InvalidArgumentError for what is no object.
    """
    if exchange.media_type != JSON:
        raise HttpError(415, grpc.StatusCode.INVALID_ARGUMENT, f"content-type: must be {JSON}")
    text = await exchange.body()
    exchange.share.take(COPIES * len(text))
    tree = await json_text.parse(text, exchange.share.add)
    if not isinstance(tree, dict):
        raise InvalidArgumentError("request", "must be an object")
    return {name: value for name, value in tree.items() if value is not None}


async def ask(calls: Calls, exchange: Exchange, method: str, tree: Tree, names: Names) -> Any:
    """Return the gateway's answer to a request of the API, such as ("EmbedTexts", {"texts": ["a cat"]}).

    Raises InvalidArgumentError and CallError, which name fields as the caller does.
    """
    descriptor = _METHODS[method]
    request = GetMessageClass(descriptor.input_type)()
    try:
        await read_message(tree, request)
        return await calls.call(descriptor, request, exchange)
    except CallError as error:
        _rename(error.status, names)
        raise
    except InvalidArgumentError as error:
        field, _, description = error.message.partition(": ")
        raise InvalidArgumentError(renamed(field, names), description) from None


def renamed(field: str, names: Names) -> str:
    """Return the caller's name of a field of the API, such as "images[1].encoded"."""
    for ours in sorted(names, key=len, reverse=True):
        rest = field.removeprefix(ours)
        if field.startswith(ours) and (not rest or rest[0] in ".["):
            return names[ours] + rest
    return field


def write(tree: Any) -> Iterator[bytes]:
    """Yield JSON in pieces. What an iterator in it yields becomes a list, item by item.

    The event loop goes on between two items: each should take a millisecond at the most.
    """
    if isinstance(tree, Iterator):
        comma = b"["
        for item in tree:
            yield comma
            yield from write(item)
            comma = b","
        yield b"[]" if comma == b"[" else b"]"
    elif isinstance(tree, dict) and any(isinstance(value, Iterator | dict) for value in tree.values()):
        comma = b"{"
        for name, value in tree.items():
            yield comma + orjson.dumps(name) + b":"
            yield from write(value)
            comma = b","
        yield b"}"
    else:
        yield orjson.dumps(tree, option=orjson.OPT_SERIALIZE_NUMPY)


def _rename(status: status_pb2.Status, names: Names) -> None:
    """Put the caller's name of a field into an error of the gateway's, where it names one."""
    field, colon, description = status.message.partition(": ")
    status.message = renamed(field, names) + colon + description
    for detail in status.details:
        request = error_details_pb2.BadRequest()
        if detail.Unpack(request):
            for violation in request.field_violations:
                violation.field = renamed(violation.field, names)
            detail.Pack(request)

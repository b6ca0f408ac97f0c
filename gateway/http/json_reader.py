"""JSON to messages, by protobuf's JSON mapping, strictly: an error names the field."""

import asyncio
import math
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from gateway.errors import InvalidArgumentError
from gateway.http.json_text import Cut, Tree, decode_base64, shown
from gateway.message_structure import MAX_STRUCTURE_BYTES

_ITEMS = 64
"""So many items of a list, with lists in them, stop the event loop for a millisecond or two."""
_MAX_FLOAT = 3.4028234663852886e38
# Of 32-bit types; the API has no others.
_RANGES = {
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
}


async def read_message(tree: Tree, message: Message, path: str = "") -> None:
    """Fill an empty message with what JSON says; raise InvalidArgumentError with the field's path."""
    if not isinstance(tree, dict):
        raise InvalidArgumentError(path or "request", f"must be an object, and is {_kind(tree)}")
    fields = fields_by_name(message.DESCRIPTOR)
    seen: set[FieldDescriptor] = set()
    for name, value in tree.items():
        field = fields.get(name)
        if field is None:
            known = ", ".join(each.name for each in message.DESCRIPTOR.fields) or "no fields"
            raise InvalidArgumentError(_join(path, shown(name)), f"is not a field; there are {known}")
        if field in seen:
            raise InvalidArgumentError(_join(path, name), f"is there twice: {field.json_name} is the same")
        seen.add(field)
        await read_field(value, message, field, _join(path, field.name))


async def read_field(value: Tree, message: Message, field: FieldDescriptor, path: str) -> None:
    """Set a field of a message to what JSON says."""
    check_choice(message, field, path)
    if not field.is_repeated:
        if field.message_type:
            inner = getattr(message, field.name)
            inner.SetInParent()
            await read_message(value, inner, path)
        else:
            setattr(message, field.name, await _scalar(value, field, path))
        return
    if not isinstance(value, list):
        raise InvalidArgumentError(path, f"must be a list, and is {_kind(value)}")
    await add_items(value, getattr(message, field.name), field, path)


def check_choice(message: Message, field: FieldDescriptor, path: str) -> None:
    """Raise InvalidArgumentError if another field is set of those of which a message has one at most."""
    oneof = field.containing_oneof
    chosen = oneof and message.WhichOneof(oneof.name)
    if oneof and chosen and chosen != field.name:
        names = " and ".join(each.name for each in oneof.fields)
        raise InvalidArgumentError(path, f"is one too many: only one of {names} may be set")


async def add_items(values: list[Tree], items: Any, field: FieldDescriptor, path: str) -> None:
    """Add what JSON says to the items of a list."""
    for value in values:
        index = len(items)
        if index % _ITEMS == _ITEMS - 1:
            await asyncio.sleep(0)
        if field.message_type:
            await read_message(value, items.add(), f"{path}[{index}]")
        else:
            items.append(await _scalar(value, field, f"{path}[{index}]"))


@cache
def fields_by_name(kind: Descriptor) -> dict[str, FieldDescriptor]:
    """Return the fields of a kind of message, by their names in .proto files and in JSON."""
    return {name: field for field in kind.fields for name in (field.json_name, field.name)}


async def _scalar(value: Tree, field: FieldDescriptor, path: str) -> object:
    match field.type:
        case FieldDescriptor.TYPE_BYTES:
            if isinstance(value, str | Cut):
                return await decode_base64(value, path)
            wanted = "a base64 string"
        case FieldDescriptor.TYPE_STRING:
            if isinstance(value, str | Cut):
                return await _text(value, path)
            wanted = "a string"
        case FieldDescriptor.TYPE_BOOL:
            if isinstance(value, bool):
                return value
            wanted = "true or false"
        case FieldDescriptor.TYPE_ENUM:
            assert field.enum_type is not None
            names = field.enum_type.values_by_name
            if isinstance(value, str) and value in names:
                return names[value].number
            wanted = f"one of {', '.join(names)}"
            raise InvalidArgumentError(path, f"must be {wanted}")
        case FieldDescriptor.TYPE_FLOAT | FieldDescriptor.TYPE_DOUBLE:
            return read_number(value, path)
        case _:
            if isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1:
                return _integer(value, field, path)
            wanted = "an integer"
    raise InvalidArgumentError(path, f"must be {wanted}, and is {_kind(value)}")


async def _text(value: str | Cut, path: str) -> str:
    if isinstance(value, Cut):
        if len(value.raw) > MAX_STRUCTURE_BYTES:
            raise InvalidArgumentError(path, f"has over {MAX_STRUCTURE_BYTES} bytes, the limit")
        await asyncio.sleep(0)
        try:
            value = value.text()
        except ValueError:
            raise InvalidArgumentError(path, "is not a string of JSON") from None
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidArgumentError(path, "has half a character: a surrogate by itself") from None
    return value


def read_number(value: Tree, path: str) -> float:
    """Return a number of single precision; raise InvalidArgumentError if it is none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InvalidArgumentError(path, f"must be a number, and is {_kind(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    # Written so that NaN is refused as well.
    if not -_MAX_FLOAT <= number <= _MAX_FLOAT:
        raise InvalidArgumentError(path, "is too large for a single-precision number")
    return number


def _integer(value: float, field: FieldDescriptor, path: str) -> int:
    least, most = _RANGES[field.type]
    if not least <= value <= most:
        raise InvalidArgumentError(path, f"must be {least} to {most}")
    return int(value)


def _kind(value: Tree) -> str:
    """Say in words what a part of JSON is."""
    match value:
        case None:
            return "null: leave the field out instead"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str() | Cut():
            return "a string"
        case list():
            return "a list"
    return "an object"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name

"""Messages to JSON, by protobuf's JSON mapping, in pieces: the event loop goes on between them.

Names are those of the .proto files. Numbers that are zero, texts and lists that are empty are written; fields
that know whether they are set are written if they are. Numbers of single precision have as many digits as
tell them from their neighbours.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import orjson
import pybase64
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.rpc import status_pb2

from gateway.http.statuses import to_tree as status_tree

Convert = Callable[[Any], Any]

ITEMS, VALUES = 256, 16384
"""So many small messages of a list are written at a time, or so many numbers."""
_STATUS = status_pb2.Status.DESCRIPTOR.full_name


def pieces_of(message: Message) -> Iterator[bytes]:
    """Yield a message's JSON."""
    comma = b"{"
    for field, convert in _fields(message.DESCRIPTOR):
        if field.has_presence and not message.HasField(field.name):
            continue
        yield comma + b'"%b":' % field.name.encode()
        comma = b","
        value = getattr(message, field.name)
        if convert is not None and field.is_repeated and len(value) > VALUES:
            yield from _value_pieces(value, convert)
        elif convert is not None:
            yield _dumps(convert(value))
        elif field.is_repeated:
            yield from _list_pieces(value)
        else:
            yield from pieces_of(value)
    yield b"{}" if comma == b"{" else b"}"


def to_tree(message: Message) -> dict[str, Any]:
    """Return a small message as what orjson writes."""
    return {
        field.name: (convert or _whole(field))(getattr(message, field.name))
        for field, convert in _fields(message.DESCRIPTOR)
        if not field.has_presence or message.HasField(field.name)
    }


def _list_pieces(items: Any) -> Iterator[bytes]:
    yield b"["
    if items and _is_large(items[0].DESCRIPTOR):
        for index, item in enumerate(items):
            if index:
                yield b","
            yield from pieces_of(item)
    else:
        for start in range(0, len(items), ITEMS):
            if start:
                yield b","
            yield _dumps([to_tree(item) for item in items[start : start + ITEMS]])[1:-1]
    yield b"]"


def _value_pieces(values: Any, convert: Convert) -> Iterator[bytes]:
    for start in range(0, len(values), VALUES):
        yield (b"," if start else b"[") + _dumps(convert(values[start : start + VALUES]))[1:-1]
    yield b"]"


def _dumps(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


@cache
def _fields(kind: Descriptor) -> tuple[tuple[FieldDescriptor, Convert | None], ...]:
    """Return the fields of a kind of message, and what makes JSON of each; None if that is made in pieces."""
    return tuple((field, _converter(field)) for field in kind.fields)


def _converter(field: FieldDescriptor) -> Convert | None:
    kind = field.message_type
    if kind is not None:
        if kind.full_name == _STATUS:
            return status_tree
        return None if field.is_repeated or _is_large(kind) else to_tree
    if field.type == FieldDescriptor.TYPE_FLOAT:
        return _floats if field.is_repeated else np.float32
    if field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_BOOL):
        return list if field.is_repeated else _same
    if field.type == FieldDescriptor.TYPE_BYTES and not field.is_repeated:
        return pybase64.b64encode_as_string
    if field.enum_type is not None and not field.is_repeated:
        names = field.enum_type.values_by_number
        return lambda number: names[number].name if number in names else number
    raise NotImplementedError(f"{field.full_name}: its JSON is not written yet")


def _whole(field: FieldDescriptor) -> Convert:
    """Return what makes JSON at once of what is elsewhere made in pieces."""
    if field.is_repeated:
        return lambda items: [to_tree(item) for item in items]
    return to_tree


def _floats(values: Any) -> Any:
    return np.array(values, np.float32)


def _same(value: Any) -> Any:
    return value


@cache
def _is_large(kind: Descriptor) -> bool:
    """Return whether a message of this kind can be large: with lists, or bytes, at any depth."""
    return any(
        (field.message_type and (field.is_repeated or _is_large(field.message_type)))
        or field.type == FieldDescriptor.TYPE_BYTES
        or (field.is_repeated and field.type != FieldDescriptor.TYPE_STRING)
        for field in kind.fields
        if not (field.message_type and field.message_type.full_name == _STATUS)
    )

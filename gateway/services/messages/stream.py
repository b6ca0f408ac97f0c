"""Messages of streams: what an item is, before it is parsed, and its answer on the wire."""

from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.internal import wire_format as wire
from google.protobuf.internal.decoder import _DecodeVarint  # type: ignore[attr-defined]
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2

from gateway.errors import InvalidArgumentError
from gateway.message_pieces import field_head
from visiongate.v1 import stream_service_pb2

MAX_ID_BYTES = 128
# A message may begin with so many fields. What comes after them is not looked at.
_MAX_FIELDS = 64

_REQUEST = stream_service_pb2.ProcessRequest.DESCRIPTOR.fields_by_name
_ITEM = stream_service_pb2.StreamItem.DESCRIPTOR
_RESULT = stream_service_pb2.StreamResult.DESCRIPTOR.fields_by_name
_RESULT_NUMBER = stream_service_pb2.ProcessResponse.DESCRIPTOR.fields_by_name["result"].number
REQUESTS: dict[int, FieldDescriptor] = {
    field.number: field for field in _ITEM.oneofs_by_name["request"].fields
}
"""The requests that an item can have, by their numbers."""


def method_of(request: FieldDescriptor) -> str:
    """Return the unary method that takes such a request. It is in the same .proto file."""
    kind = request.message_type
    assert kind is not None
    for service in kind.file.services_by_name.values():
        for method in service.methods:
            if method.input_type == kind:
                return f"/{service.full_name}/{method.name}"
    raise LookupError(f"no method takes {kind.full_name}")


METHODS: dict[int, str] = {number: method_of(field) for number, field in REQUESTS.items()}


@dataclass(frozen=True, slots=True)
class Peeked:
    """What a message is by its bytes. Parsing may find that it is something else, or nothing.

    content: settings, item or nothing. request: the number of an item's request; 0 for one that is unknown.
    """

    content: str
    id: str = ""
    request: int = 0


def peek(data: bytes) -> Peeked:
    """Say what a message is without parsing it: that is done once there is room for it."""
    content, name, request = "", b"", 0
    for number, start, end in _fields(data, 0, len(data)):
        if number == _REQUEST["settings"].number:
            content = "settings"
        elif number == _REQUEST["item"].number:
            content = "item"
            for inner, begin, stop in _fields(data, start, end):
                if inner == _ITEM.fields_by_name["id"].number:
                    name = data[begin : min(stop, begin + MAX_ID_BYTES + 1)]
                elif inner in REQUESTS:
                    request = inner
    return Peeked(content, name.decode(errors="replace"), request)


def request_of(data: bytes, peeked: Peeked) -> Message:
    """Parse an item; return its request. Raises InvalidArgumentError and DecodeError."""
    if not 0 < len(peeked.id.encode()) <= MAX_ID_BYTES:
        raise InvalidArgumentError("item.id", f"must have 1 to {MAX_ID_BYTES} bytes")
    if not peeked.request:
        raise InvalidArgumentError("item.request", "is none that this server knows")
    item = stream_service_pb2.ProcessRequest.FromString(data).item
    name = REQUESTS[peeked.request].name
    if item.id != peeked.id or item.WhichOneof("request") != name:
        raise InvalidArgumentError("item", "is not one item with one id and one request")
    request: Message = getattr(item, name)
    return request


def result_bytes(peeked: Peeked, request_id: str, outcome: bytes | status_pb2.Status) -> bytes:
    """Return the message with an item's answer. A response is in its bytes, which are copied once."""
    head = stream_service_pb2.StreamResult(id=peeked.id, request_id=request_id).SerializeToString()
    if isinstance(outcome, bytes):
        number = peeked.request
    else:
        number, outcome = _RESULT["error"].number, outcome.SerializeToString()
    inner = field_head(number, len(outcome))
    outer = field_head(_RESULT_NUMBER, len(head) + len(inner) + len(outcome))
    return b"".join((outer, head, inner, outcome))


def _fields(data: bytes, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, start and end of the fields of a message that have a length, as far as it is valid."""
    try:
        for _ in range(_MAX_FIELDS):
            if position >= end:
                return
            tag, position = _DecodeVarint(data, position)
            match tag & 7:
                case wire.WIRETYPE_LENGTH_DELIMITED:
                    length, start = _DecodeVarint(data, position)
                    position = start + length
                    if position > end:
                        return
                    yield tag >> 3, start, position
                case wire.WIRETYPE_VARINT:
                    _, position = _DecodeVarint(data, position)
                case wire.WIRETYPE_FIXED64:
                    position += 8
                case wire.WIRETYPE_FIXED32:
                    position += 4
                case _:
                    return
    except (IndexError, DecodeError):
        return

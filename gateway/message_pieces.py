"""Messages written piece by piece: the whole of a large one would hold the interpreter's lock for long."""

from collections.abc import Iterator

from google.protobuf.message import Message

_LENGTH_DELIMITED = 2


def pieces_of(message: Message) -> Iterator[bytes]:
    """Yield a message's bytes: each item of its lists of messages by itself, and then the rest.

    Joined, they are a message that is equal: the order of fields means nothing in protobuf. One with
    a single item is one piece.
    """
    fields = message.ListFields()
    if sum(len(value) for field, value in fields if field.message_type and field.is_repeated) <= 1:
        yield message.SerializeToString()
        return
    rest = type(message)()
    for field, value in fields:
        if field.message_type and field.is_repeated:
            for item in value:
                content = item.SerializeToString()
                yield field_head(field.number, len(content)) + content
        elif field.message_type:
            getattr(rest, field.name).CopyFrom(value)
        elif field.is_repeated:
            getattr(rest, field.name).extend(value)
        else:
            setattr(rest, field.name, value)
    yield rest.SerializeToString()


def field_head(number: int, length: int) -> bytes:
    """Return what is before the content of a field that has a length."""
    return varint(number << 3 | _LENGTH_DELIMITED) + varint(length)


def varint(value: int) -> bytes:
    """Return a number in protobuf's variable length."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)

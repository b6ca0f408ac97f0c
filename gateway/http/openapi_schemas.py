"""JSON schemas of protobuf messages, as the front's JSON has them."""

from collections.abc import Iterable
from typing import Any

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, OneofDescriptor
from google.rpc import error_details_pb2, status_pb2

from gateway.http.proto_comments import proto_comments

Schema = dict[str, Any]

ERROR_DETAILS: tuple[Descriptor, ...] = (
    error_details_pb2.BadRequest.DESCRIPTOR,
    error_details_pb2.ErrorInfo.DESCRIPTOR,
    error_details_pb2.RetryInfo.DESCRIPTOR,
    error_details_pb2.RequestInfo.DESCRIPTOR,
)
"""What the server packs into the details of a google.rpc.Status."""

_STATUS = status_pb2.Status.DESCRIPTOR
_INT32: Schema = {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1}
_UINT32: Schema = {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}
# JSON's numbers are not exact beyond 53 bits.
_INT64: Schema = {"type": "string", "format": "int64", "pattern": "^-?[0-9]+$"}
_UINT64: Schema = {"type": "string", "format": "uint64", "pattern": "^[0-9]+$"}
_SCALARS: dict[int, Schema] = {
    FieldDescriptor.TYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptor.TYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    FieldDescriptor.TYPE_INT32: _INT32,
    FieldDescriptor.TYPE_SINT32: _INT32,
    FieldDescriptor.TYPE_SFIXED32: _INT32,
    FieldDescriptor.TYPE_UINT32: _UINT32,
    FieldDescriptor.TYPE_FIXED32: _UINT32,
    FieldDescriptor.TYPE_INT64: _INT64,
    FieldDescriptor.TYPE_SINT64: _INT64,
    FieldDescriptor.TYPE_SFIXED64: _INT64,
    FieldDescriptor.TYPE_UINT64: _UINT64,
    FieldDescriptor.TYPE_FIXED64: _UINT64,
}
_DURATION: Schema = {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$"}


def schemas(requests: Iterable[Descriptor], answers: Iterable[Descriptor]) -> dict[str, Schema]:
    """Return the schemas of these messages, and of all messages and enums in them, by their names.

    Requests take no other fields than theirs. Answers may get further ones in later versions, and always have
    the fields that have no presence.
    """
    asked = _with_inner(requests)
    messages = asked | _with_inner([*answers, *ERROR_DETAILS])
    enums = {
        schema_name(field.enum_type): field.enum_type
        for message in messages.values()
        for field in message.fields
        if field.enum_type is not None
    }
    found = {name: _message(message, is_request=name in asked) for name, message in messages.items()}
    return dict(sorted((found | {name: _enum(enum) for name, enum in enums.items()}).items()))


def schema_name(declared: Descriptor | EnumDescriptor) -> str:
    """Return the name of the schema: the full name, of our own package's messages and enums the last part."""
    return str(declared.full_name.removeprefix("visiongate.v1."))


def reference(declared: Descriptor | EnumDescriptor) -> Schema:
    return {"$ref": f"#/components/schemas/{schema_name(declared)}"}


def comment_of(full_name: str) -> str:
    return proto_comments().get(full_name, "")


def real_oneofs(message: Descriptor) -> list[OneofDescriptor]:
    """Return the oneofs of the .proto file, without those that protobuf makes of `optional` fields."""
    return [oneof for oneof in message.oneofs if not _is_optional(oneof)]


def _is_optional(oneof: OneofDescriptor) -> bool:
    return len(oneof.fields) == 1 and oneof.name == f"_{oneof.fields[0].name}"


def is_required(field: FieldDescriptor) -> bool:
    return field_behavior_pb2.REQUIRED in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]


def _with_inner(messages: Iterable[Descriptor]) -> dict[str, Descriptor]:
    found: dict[str, Descriptor] = {}
    waiting = list(messages)
    while waiting:
        message = waiting.pop()
        if schema_name(message) not in found:
            found[schema_name(message)] = message
            waiting += [
                field.message_type
                for field in message.fields
                if field.message_type is not None and not _has_form_of_its_own(field.message_type)
            ]
    return found


def _has_form_of_its_own(message: Descriptor) -> bool:
    """Return whether JSON has another form of it than an object with its fields."""
    return bool(message.GetOptions().map_entry) or message.file.package == "google.protobuf"


def _message(message: Descriptor, *, is_request: bool) -> Schema:
    schema: Schema = {
        "type": "object",
        "description": comment_of(message.full_name),
        "properties": {field.name: field_schema(field) for field in message.fields},
    }
    if is_request:
        required = [field.name for field in message.fields if is_required(field)]
        schema["additionalProperties"] = False
    else:
        required = _always_there(message)
    if required:
        schema["required"] = required
    choices = [_oneof(oneof) for oneof in real_oneofs(message)]
    if choices:
        schema["allOf"] = choices
    return schema


def _always_there(message: Descriptor) -> list[str]:
    """Return the fields that an answer's JSON has whatever their values are."""
    if message == _STATUS:
        return ["code", "message"]
    # Google's other messages are in errors alone, whose JSON has only what is set.
    is_google = message.file.package.startswith("google.")
    return [field.name for field in message.fields if not (field.has_presence or is_google)]


def _oneof(oneof: OneofDescriptor) -> Schema:
    ways: list[Schema] = [{"required": [field.name]} for field in oneof.fields]
    return {"description": comment_of(oneof.full_name), "oneOf": [*ways, {"not": {"anyOf": ways}}]}


def field_schema(field: FieldDescriptor) -> Schema:
    """Return the schema of a field, with its comment as the description."""
    description = {"description": comment_of(field.full_name)}
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value = field.message_type.fields_by_name["value"]
        return {"type": "object", "additionalProperties": _value(value)} | description
    if field.is_repeated:
        # A list that is required has an item.
        least = {"minItems": 1} if is_required(field) else {}
        return {"type": "array", "items": _value(field)} | least | description
    return _value(field) | description


def _value(field: FieldDescriptor) -> Schema:
    """Return the schema of one value of the field."""
    if field.enum_type is not None:
        return reference(field.enum_type)
    if field.message_type is not None:
        return _message_value(field.message_type)
    return dict(_SCALARS[field.type])


def _message_value(message: Descriptor) -> Schema:
    if message.full_name == "google.protobuf.Any":
        return {"oneOf": [_packed(detail) for detail in ERROR_DETAILS]}
    if message.full_name == "google.protobuf.Duration":
        return dict(_DURATION)
    return reference(message)


def _packed(detail: Descriptor) -> Schema:
    """Return the schema of a message in a google.protobuf.Any."""
    kind = {"const": f"type.googleapis.com/{detail.full_name}"}
    return {"allOf": [reference(detail), {"required": ["@type"], "properties": {"@type": kind}}]}


def _enum(enum: EnumDescriptor) -> Schema:
    values = [f"- `{value.name}`: {comment_of(f'{enum.full_name}.{value.name}')}" for value in enum.values]
    return {
        "type": "string",
        "enum": [value.name for value in enum.values],
        "description": comment_of(enum.full_name) + "\n\n" + "\n".join(values),
    }

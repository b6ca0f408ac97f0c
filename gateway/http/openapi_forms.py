"""The forms of the OpenAPI document: `multipart/form-data` in place of JSON."""

from typing import Any

from google.protobuf.descriptor import Descriptor

from gateway.http.forms import Path, is_image, shortest_names
from gateway.http.openapi_schemas import Schema, comment_of, field_schema, is_required
from visiongate.v1 import image_pb2

_IMAGE = image_pb2.Image.DESCRIPTOR

# The first keyword is what OpenAPI 3.1 has for files, the second is what older tools know.
FILE: Schema = {"type": "string", "contentMediaType": "application/octet-stream", "format": "binary"}
EXAMPLE_FILE = "@photo.png"
"""Stands for a file in examples, as it does for curl."""


def form_content(request: Descriptor, example: dict[str, Any]) -> Schema:
    """Return what the document says of this request as a form. example: the request as JSON."""
    parts = shortest_names(request)
    values = {name: _value(example, path) for name, path in parts.items()}
    schema = {
        "type": "object",
        "description": f"{comment_of(request.full_name)} In the example, `{EXAMPLE_FILE}` stands for a file.",
        "properties": {name: _schema(name, path) for name, path in parts.items()},
        "required": [name for name, path in parts.items() if _is_required(path)],
        "additionalProperties": False,
    }
    return {"schema": schema, "example": {name: value for name, value in values.items() if value is not None}}


def _schema(name: str, path: Path) -> Schema:
    field = path[-1]
    schema = field_schema(field)
    # The name of a list alone in its message is left out of the form. What it is for stands above it.
    if not name.endswith(field.name):
        schema["description"] = f"{comment_of(path[-2].full_name)} {schema['description']}"
    if not is_image(field):
        return schema
    item = FILE
    if field.message_type != _IMAGE:
        item = {"type": "string"}
        schema["description"] += " A file is an image, any other part is a text."
    kind = {"type": "array", "items": item} if field.is_repeated else item
    return kind | {"description": schema["description"]}


def _is_required(path: Path) -> bool:
    # In place of an image's file there may be its name.
    return all(map(is_required, path)) and path[-1].message_type != _IMAGE


def _value(example: Any, path: Path) -> Any:
    """Return what the example has at this path, or None."""
    for field in path:
        if field.name not in example:
            return None
        example = example[field.name]
    if not is_image(path[-1]):
        return example
    return [_part(item) for item in example] if path[-1].is_repeated else _part(example)


def _part(image: dict[str, Any]) -> str:
    """Return the part for an image, or for an image or text."""
    text: str = image.get("text", EXAMPLE_FILE)
    return text

"""The OpenAPI document, made of the .proto files: their declarations, HTTP annotations and comments."""

import re
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version

import orjson
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor
from google.rpc import status_pb2

from gateway.http.api import FORM, JSON, NPY, PNG, Operation, operations
from gateway.http.exchange import Answer, Exchange
from gateway.http.openapi_errors import error_responses, references_to_errors
from gateway.http.openapi_examples import example
from gateway.http.openapi_forms import FILE, form_content
from gateway.http.openapi_schemas import Schema, comment_of, reference, schemas
from gateway.services.registry import SERVICES

_DESCRIPTION = """\
Vision models over HTTP. Every operation is also a method of the gRPC API, with the same fields.

**Requests** are JSON or forms. In JSON, names of fields are taken in snake_case and in lowerCamelCase. \
Bytes, such as an image file, are base64: standard or URL-safe, with or without padding, and with or \
without a prefix `data:...;base64,`. What the schema does not know is refused, and the error names the \
field.

**Forms** are of the type `multipart/form-data`, as `curl -F` sends them. Images are files. A field inside \
another one has its own name, such as `min_score`, where no other field has it, or its path, such as \
`query.min_score`. The parts of a list are sent one by one under the same name. A message in a list is \
JSON.

**Answers** are JSON. Zeros, empty texts and empty lists are there; what is not set is not.

**Keys.** If the server has API keys, each request needs one: `authorization: Bearer KEY` or `x-api-key: \
KEY`.

**Images.** Answers have an `image_id`. Later requests about the same image can give it in its place."""
# What an answer is that is no JSON.
_MEDIA_TYPES = {
    PNG: "One picture of the image's size: white where any of the masks is, and black elsewhere. Of several "
    "masks for one prompt the best counts.",
    NPY: "A file of NumPy with an array [items, dimensions] of float32, or of float16 if the request's "
    "`embedding_format` says so. An item that cannot be used fails the whole request.",
}
_PARAMETERS: dict[str, Schema] = {
    "x-request-id": {
        "in": "header",
        "name": "x-request-id",
        "description": "A name for this request in the server's log: at most 128 visible ASCII characters. "
        "In place of another one, or of none, the server makes one.",
        "schema": {"type": "string"},
    },
    "x-timeout-s": {
        "in": "header",
        "name": "x-timeout-s",
        "description": "After so many seconds the server drops the work and answers 504.",
        "schema": {"type": "number", "exclusiveMinimum": 0},
        "example": 30,
    },
}
_HEADERS: dict[str, Schema] = {
    "x-request-id": {
        "description": "The name of this request in the server's log.",
        "schema": {"type": "string"},
    },
    "Retry-After": {"description": "Wait so many seconds.", "schema": {"type": "integer", "minimum": 0}},
}
_SECURITY: dict[str, Schema] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
    "api_key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "An API key."},
}


async def answer(exchange: Exchange) -> Answer:
    """Answer with the document of this server."""
    return Answer([document_json()])


@cache
def document_json() -> bytes:
    """Return the document of this server's services as JSON."""
    return orjson.dumps(document([service.file for service in SERVICES]))


def document(files: Iterable[FileDescriptor]) -> Schema:
    """Return the OpenAPI document of the services in these files: their methods that have an HTTP route."""
    files = list(files)
    found = list(operations(files))
    paths: dict[str, Schema] = {}
    for each in found:
        paths.setdefault(each.path, {})[each.http_method.lower()] = _operation(each)
    requests = [each.method.input_type for each in found if _has_body(each)]
    answers = [each.method.output_type for each in found]
    # In the order of the files. One that has streams alone has no route.
    services = dict.fromkeys(each.method.containing_service for each in found)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "visiongate",
            "version": version("visiongate-server"),
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": service.name, "description": comment_of(service.full_name)} for service in services
        ],
        "security": [{name: []} for name in _SECURITY] + [{}],
        "paths": paths,
        "components": {
            "schemas": schemas(requests, [*answers, status_pb2.Status.DESCRIPTOR]),
            "responses": error_responses(),
            "parameters": _PARAMETERS,
            "headers": _HEADERS,
            "securitySchemes": _SECURITY,
        },
    }


def _has_body(operation: Operation) -> bool:
    return operation.http_method != "GET"


def _operation(operation: Operation) -> Schema:
    method = operation.method
    comment = comment_of(method.full_name)
    body = {"requestBody": _body(method)} if _has_body(operation) else {}
    return {
        "operationId": method.name,
        "tags": [method.containing_service.name],
        "summary": re.split(r"(?<=\.)\s", comment)[0].removesuffix("."),
        "description": comment,
        "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in _PARAMETERS],
        **body,
        "responses": {"200": _answer(operation), **references_to_errors(has_body=bool(body))},
    }


def _body(method: MethodDescriptor) -> Schema:
    request = method.input_type
    shown = example(method.name, request)
    content = {JSON: {"schema": reference(request), "example": shown}, FORM: form_content(request, shown)}
    return {"required": True, "content": content}


def _answer(operation: Operation) -> Schema:
    kind = operation.method.output_type
    content: Schema = {JSON: {"schema": reference(kind)}}
    for media_type in operation.media_types:
        if media_type != JSON:
            content[media_type] = {"schema": FILE | {"description": _MEDIA_TYPES[media_type]}}
    return {
        "description": comment_of(kind.full_name),
        "headers": {"x-request-id": {"$ref": "#/components/headers/x-request-id"}},
        "content": content,
    }

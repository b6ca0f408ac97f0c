"""The errors of the OpenAPI document: what each HTTP status means."""

from dataclasses import dataclass
from typing import Any

from google.rpc import status_pb2

from gateway.http.openapi_schemas import reference

_EXAMPLE = {
    "code": 3,
    "message": "image: is not set",
    "details": [
        {
            "@type": "type.googleapis.com/google.rpc.BadRequest",
            "field_violations": [{"field": "image", "description": "is not set", "reason": ""}],
        }
    ],
}


@dataclass(frozen=True, slots=True)
class _Error:
    """An answer that is an error. of_bodies: only requests that have a body get it."""

    status: int
    name: str
    description: str
    of_bodies: bool = False
    is_retried: bool = False


_ERRORS = (
    _Error(400, "BadRequest", "The request is wrong. The message names the field and the limit."),
    _Error(401, "Unauthenticated", "There is no API key, or one that the server does not know."),
    _Error(403, "Forbidden", "The server does not answer by this host name, or not to this web page."),
    _Error(404, "NotFound", "The server does not keep an image of this `image_id`: send it again.", True),
    _Error(406, "NotAcceptable", "The answer cannot be of any type that the header `accept` names."),
    _Error(408, "RequestTimeout", "The request did not arrive in time.", True),
    _Error(413, "TooLarge", "The request is larger than the server takes.", True),
    _Error(415, "UnsupportedMediaType", "The body is of another content type than those above.", True),
    _Error(429, "Overloaded", "There is no room at present: try again later.", is_retried=True),
    _Error(499, "Cancelled", "The server stopped before the work was done."),
    _Error(
        500, "Internal", "A fault of a model or of the server. Its log knows more, by the request's name."
    ),
    _Error(501, "NoModel", "The server has no model for this task.", True),
    _Error(503, "Unavailable", "The models are not ready, or do not answer: try again.", is_retried=True),
    _Error(504, "DeadlineExceeded", "The time that the caller or the server allows has passed."),
)


def error_responses() -> dict[str, Any]:
    """Return the answers that are errors, for the components of the document."""
    return {error.name: _response(error) for error in _ERRORS}


def references_to_errors(*, has_body: bool) -> dict[str, Any]:
    """Return the errors that an operation can answer with, by their statuses."""
    return {
        str(error.status): {"$ref": f"#/components/responses/{error.name}"}
        for error in _ERRORS
        if has_body or not error.of_bodies
    }


def _response(error: _Error) -> dict[str, Any]:
    headers = ["x-request-id", *(["Retry-After"] if error.is_retried else [])]
    content: dict[str, Any] = {"schema": reference(status_pb2.Status.DESCRIPTOR)}
    if error.status == _ERRORS[0].status:
        content["example"] = _EXAMPLE
    return {
        "description": error.description,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in headers},
        "content": {"application/json": content},
    }

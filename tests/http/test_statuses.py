"""gRPC's statuses as HTTP's."""

import json

import grpc
import pytest
from google.rpc import status_pb2

from gateway.errors import (
    InvalidArgumentError,
    MessageTooLargeError,
    NoModelError,
    OverloadedError,
    StatusError,
    TritonUnavailableError,
    UnauthenticatedError,
)
from gateway.http import statuses


def test_every_code_has_a_status() -> None:
    assert set(statuses.HTTP_STATUS) == {code.value[0] for code in grpc.StatusCode}


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (InvalidArgumentError("image", "is not set"), 400, {}),
        (UnauthenticatedError("no", "KEY_MISSING"), 401, {}),
        (MessageTooLargeError(1), 413, {}),
        (OverloadedError("full", "calls", 0.6), 429, {"retry-after": "1"}),
        (OverloadedError("full", "calls", 2.1), 429, {"retry-after": "3"}),
        (NoModelError("gaze"), 501, {}),
        (TritonUnavailableError("away"), 503, {"retry-after": "1"}),
        (StatusError(grpc.StatusCode.INTERNAL, "x"), 500, {}),
        (StatusError(grpc.StatusCode.CANCELLED, "x"), 499, {}),
    ],
    ids=lambda each: type(each).__name__,
)
def test_errors(error: StatusError, status: int, retry: dict[str, str]) -> None:
    message = error.to_message("id")
    assert statuses.http_status(message) == status
    assert statuses.retry_headers(message) == retry


def test_a_code_of_the_future_is_the_servers_fault() -> None:
    assert statuses.http_status(status_pb2.Status(code=99)) == 500


def test_json() -> None:
    tree = json.loads(statuses.to_json(InvalidArgumentError("image", "is not set").to_message("id")))
    assert (tree["code"], tree["message"]) == (3, "image: is not set")
    assert tree["details"][0] == {
        "@type": "type.googleapis.com/google.rpc.BadRequest",
        "field_violations": [{"field": "image", "description": "is not set"}],
    }
    assert json.loads(statuses.to_json(status_pb2.Status())) == {"code": 0, "message": ""}

"""Kinds of errors, and errors that travel to another process."""

import copy
import inspect
import pickle

import grpc
import pytest

from visiongate import errors
from visiongate.errors import OverloadedError, VisiongateError, error_kind

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, VisiongateError)]


@pytest.mark.parametrize("kind", KINDS)
def test_errors_are_pickled_whole(kind: type[VisiongateError]) -> None:
    error = kind(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "full",
        field="image",
        reason="OVERLOADED",
        retry_s=0.5,
        request_id="abc",
        grpc_message="words",
    )
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(other) is kind
        assert vars(other) == vars(error)
        assert str(other) == "RESOURCE_EXHAUSTED: full"


def test_every_kind_is_exported_and_says_what_to_do() -> None:
    import visiongate

    for kind in KINDS:
        assert getattr(visiongate, kind.__name__) is kind
        assert kind.__doc__


def test_a_reason_that_nobody_knows_does_not_hide_the_status() -> None:
    assert error_kind(grpc.StatusCode.RESOURCE_EXHAUSTED, "OTHER") is OverloadedError
    assert error_kind(grpc.StatusCode.UNAVAILABLE, "IMAGE_NOT_CACHED") is errors.UnavailableError
    assert error_kind(grpc.StatusCode.NOT_FOUND, "") is VisiongateError
    assert error_kind(grpc.StatusCode.ABORTED, "") is VisiongateError

"""What a call may take, and what is sent beside its request."""

import datetime
import math
from typing import Any

import numpy as np
import pytest

from visiongate import AsyncClient, Client


@pytest.mark.parametrize(
    "timeout", [0, -1, -0.0, math.nan, -math.inf, "5", True, b"5", datetime.timedelta(1)]
)
def test_a_timeout_that_cannot_be_meant(timeout: Any) -> None:
    for make in (Client, AsyncClient, Client().with_options):
        with pytest.raises(ValueError, match=r"^timeout is .*: give seconds above 0, or None for no limit"):
            make(timeout=timeout)


@pytest.mark.parametrize("timeout", [None, math.inf, 1e300, 3, 0.5, np.float32(2), np.int64(2)])
def test_a_timeout_that_can(timeout: Any) -> None:
    seconds = Client(timeout=timeout)._options.timeout_s
    assert seconds == (math.inf if timeout is None or timeout > 1e9 else timeout)
    assert AsyncClient().with_options(timeout=timeout)._options.timeout_s == seconds


def test_options_that_are_not_given_stay() -> None:
    client = Client(timeout=7, wait=False)
    named = client.with_options(request_id="one", metadata={"tenant": "a", "kept": "b"})
    view = named.with_options(timeout=3, metadata={"tenant": "c", "blob-bin": b"\0"})
    assert (view._options.timeout_s, view._options.wait, view._options.request_id) == (3, False, "one")
    assert view._options.metadata == (("kept", "b"), ("tenant", "c"), ("blob-bin", b"\0"))
    assert client._options.request_id == ""
    assert client._options.metadata == ()
    assert client.with_options(wait=True)._options.wait
    assert isinstance(view, Client)


@pytest.mark.parametrize(
    ("keywords", "says"),
    [
        ({"request_id": ""}, "request_id is '': give 1 to 128 visible ASCII characters"),
        ({"request_id": "a b"}, "request_id is 'a b'"),
        ({"request_id": "é"}, "request_id is"),
        ({"request_id": "x" * 129}, "1 to 128"),
        ({"request_id": 7}, "request_id is 7"),
        ({"traceparent": "00-1-2-3"}, "traceparent is '00-1-2-3': give version, trace id"),
        ({"metadata": {"Tenant": "a"}}, "metadata key 'Tenant': give lower-case letters"),
        ({"metadata": {"": "a"}}, "metadata key ''"),
        ({"metadata": {"tenant": "é"}}, "metadata value of 'tenant': give a string of printable ASCII"),
        ({"metadata": {"tenant": "a\n"}}, "metadata value of 'tenant'"),
        ({"metadata": {"tenant": 1}}, "metadata value of 'tenant'"),
        ({"metadata": {"tenant": b"a"}}, "metadata value of 'tenant'"),
        ({"metadata": {"blob-bin": "a"}}, "metadata value of 'blob-bin': keys that end in -bin take bytes"),
        ({"metadata": {"authorization": "secret"}}, "metadata key 'authorization': use the option api_key"),
        ({"metadata": {"x-request-id": "a"}}, "use the option request_id"),
        ({"metadata": {"traceparent": "a"}}, "use the option traceparent"),
        ({"metadata": {"grpc-timeout": "1S"}}, "gRPC keeps it for itself"),
        ({"metadata": [("tenant", "a")]}, "metadata is a dict, not list"),
    ],
)
def test_options_that_cannot_be_sent(keywords: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=f"^{says.split(':', maxsplit=1)[0]}|{says}") as caught:
        Client().with_options(**keywords)
    assert says in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("limit", [0, -1, 2**31, 1.5, "64", None])
def test_a_message_limit_that_cannot_be_meant(limit: Any) -> None:
    with pytest.raises(ValueError, match=r"^max_message_bytes is .*: give a whole number, 1 to 2147483647"):
        Client(max_message_bytes=limit)

"""What of a request's headers reaches the gateway."""

import httpx
import pytest


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("authorization", "Bearer é".encode("latin-1")),
        ("x-api-key", b"\xff"),
        ("traceparent", b"\xe9"),
        ("tracestate", b"a=1,\tb=2"),
    ],
)
async def test_headers_that_grpc_cannot_carry_are_left_out(
    demo_http: httpx.AsyncClient, name: str, value: bytes
) -> None:
    headers = {name.encode(): value}
    assert (await demo_http.get("/v1/models", headers=headers)).status_code == 200

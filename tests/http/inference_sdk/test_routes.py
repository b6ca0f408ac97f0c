"""Which routes there are."""

import httpx
import pytest

from gateway.http.front import HttpFront
from gateway.http.inference_sdk.routes import NOT_SERVED, SERVED
from gateway.settings import Settings

ROUTES = [("GET", "/info"), *SERVED]


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_they_are_off_by_default(demo_http: httpx.AsyncClient, method: str, path: str) -> None:
    assert (await demo_http.request(method, path)).status_code == 404


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_they_answer_their_own_method_alone(
    sdk_http: httpx.AsyncClient, method: str, path: str
) -> None:
    other = {"GET": "POST", "POST": "GET"}[method]
    response = await sdk_http.request(other, path)
    assert response.status_code == 405
    assert method in response.headers["allow"]


@pytest.mark.parametrize("path", NOT_SERVED)
async def test_what_is_not_served_says_why(sdk_http: httpx.AsyncClient, path: str) -> None:
    asked = path.replace("{rest:path}", "a/b")
    for method in ("GET", "POST"):
        response = await sdk_http.request(method, asked)
        assert (response.status_code, response.json()) == (501, {"message": f"{asked}: {NOT_SERVED[path]}"})


async def test_a_gateway_that_starts_is_unavailable(demo_settings: Settings) -> None:
    settings = demo_settings.model_copy(update={"inference_sdk_routes": True, "http_port": 0})
    async with HttpFront(settings) as front, httpx.AsyncClient(base_url=front.url) as client:
        for response in (
            await client.post("/clip/embed_text", json={"text": "a"}),
            await client.get("/model/registry"),
        ):
            assert response.status_code == 503
            assert response.headers["retry-after"] == "1"
            assert response.json()["message"].startswith("the server is starting")

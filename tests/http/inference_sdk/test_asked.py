"""Keys, wherever the SDK puts them, and what every route asks of a request."""

import base64
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import httpx
import pytest

from gateway.api_keys import ApiKey, write_keys
from gateway.settings import Settings
from http_front import serving
from recorded_calls import answer, refusal

KEY = "vg_recorded"
"""The key in the recorded requests."""
TEXT = {"text": "a face"}


@pytest.fixture(scope="module")
async def guarded(
    demo_settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[httpx.AsyncClient]:
    path = tmp_path_factory.mktemp("keys") / "keys.toml"
    write_keys(path, [ApiKey("tester", hashlib.sha256(KEY.encode()).digest(), datetime.now(UTC))])
    update = {"inference_sdk_routes": True, "api_keys": path}
    async with (
        serving(demo_settings.model_copy(update=update)) as front,
        httpx.AsyncClient(base_url=front.url, timeout=60) as client,
    ):
        yield client


@pytest.mark.parametrize("name", ["clip_embed_text", "clip_embed_text_header", "registry", "info"])
async def test_the_sdk_is_let_in_wherever_it_has_its_key(guarded: httpx.AsyncClient, name: str) -> None:
    assert await answer(guarded, name, b"")


async def test_each_place_of_a_key(guarded: httpx.AsyncClient) -> None:
    path = "/clip/embed_text"
    in_query = await guarded.post(path, params={"api_key": KEY}, json=TEXT)
    in_header = await guarded.post(path, headers={"authorization": f"Bearer {KEY}"}, json=TEXT)
    in_ours = await guarded.post(path, headers={"x-api-key": KEY}, json=TEXT)
    in_body = await guarded.post(path, json={**TEXT, "api_key": KEY})
    assert [each.status_code for each in (in_query, in_header, in_ours, in_body)] == [200] * 4


async def test_the_query_goes_before_headers_and_these_before_the_body(guarded: httpx.AsyncClient) -> None:
    path, wrong = "/clip/embed_text", {"authorization": "Bearer wrong"}
    right = await guarded.post(path, params={"api_key": KEY}, headers=wrong, json=TEXT)
    assert right.status_code == 200
    by_query = await guarded.post(path, params={"api_key": "wrong"}, headers={"x-api-key": KEY}, json=TEXT)
    by_header = await guarded.post(path, headers=wrong, json={**TEXT, "api_key": KEY})
    assert [by_query.status_code, by_header.status_code] == [401, 401]


@pytest.mark.parametrize(
    ("body_key", "status", "says"),
    [
        (None, 401, "no API key"),
        ("wrong", 401, "the API key is not valid"),
        ("", 401, "no API key"),
        (7, 400, "api_key: must be at most 256"),
        ("k" * 257, 400, "api_key: must be at most 256"),
        ("k" * 5000, 400, "api_key: must be at most 256"),
        ("a\nb", 400, "api_key: must be at most 256"),
        ("é", 400, "api_key: must be at most 256"),
    ],
)
async def test_keys_that_are_none(
    guarded: httpx.AsyncClient, body_key: object, status: int, says: str
) -> None:
    response = await guarded.post("/clip/embed_text", json={**TEXT, "api_key": body_key})
    assert response.status_code == status
    assert response.json()["message"].startswith(says)
    if status == 401:
        assert response.headers["www-authenticate"] == "Bearer"


async def test_a_wrong_key_outside_the_body_is_refused_before_the_body_is_read(
    guarded: httpx.AsyncClient,
) -> None:
    wrong = await guarded.post("/clip/embed_text", params={"api_key": "wrong"}, content=b"no JSON")
    assert wrong.status_code == 401
    assert (await guarded.get("/model/registry")).status_code == 401


async def test_bodies_are_objects_of_json(sdk_http: httpx.AsyncClient) -> None:
    form = await sdk_http.post("/clip/embed_text", data=TEXT)
    assert (form.status_code, form.json()) == (415, {"message": "content-type: must be application/json"})
    for content in ("[]", '"a"', "{", '{"text": NaN}'):
        response = await sdk_http.post(
            "/clip/embed_text", content=content, headers={"content-type": "application/json"}
        )
        assert response.status_code == 400
        assert response.json()["message"].startswith("request: ")


async def test_null_is_as_good_as_nothing(sdk_http: httpx.AsyncClient, picture: bytes) -> None:
    """The SDK sends null for a key that it was not given."""
    found = await sdk_http.post("/clip/embed_text", json={**TEXT, "api_key": None, "clip_version_id": None})
    assert found.status_code == 200


async def test_an_address_is_left_to_the_gateway(sdk_http: httpx.AsyncClient, picture: bytes) -> None:
    url = {"type": "url", "value": "https://example.com/cat.png"}
    status, message = await refusal(sdk_http, "ocr", picture, image=url)
    assert (status, message.partition(":")[0]) == (400, "image.value")
    status, message = await refusal(sdk_http, "ocr", picture, image=[url])
    assert (status, message.partition(":")[0]) == (400, "image[0].value")


async def test_base64_in_every_form(sdk_http: httpx.AsyncClient, picture: bytes) -> None:
    expected = await answer(sdk_http, "clip_embed_image", picture)
    text = base64.urlsafe_b64encode(picture).decode().rstrip("=")
    for value in (text, f"data:image/png;base64,{text}"):
        image = {"type": "base64", "value": value}
        found = await answer(sdk_http, "clip_embed_image", picture, image=image)
        assert found["embeddings"] == expected["embeddings"]

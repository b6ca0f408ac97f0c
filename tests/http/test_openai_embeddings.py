"""Embeddings by OpenAI's own client, and as others send them."""

import base64
import io
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from PIL import Image
from skimage import data as skimage_data

from visiongate import AsyncClient

PHOTO = skimage_data.astronaut()


def data_uri(kind: str = "PNG", side: int = 512) -> str:
    file = io.BytesIO()
    Image.fromarray(PHOTO).resize((side, side)).save(file, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


@pytest.fixture
async def client(demo_http: httpx.AsyncClient) -> AsyncIterator[openai.AsyncOpenAI]:
    url = demo_http.base_url.join("/v1")
    async with openai.AsyncOpenAI(base_url=str(url), api_key="none", max_retries=0) as connected:
        yield connected


async def test_texts(client: openai.AsyncOpenAI, demo_client: AsyncClient) -> None:
    texts = ["a red circle", "a face", "a red circle"]
    found = await client.embeddings.create(model="clip", input=texts)
    expected = await demo_client.embed_texts(texts)
    np.testing.assert_allclose([item.embedding for item in found.data], expected, atol=1e-6)
    assert [item.index for item in found.data] == [0, 1, 2]
    assert found.model == "demo"
    assert (found.usage.prompt_tokens, found.usage.total_tokens) == (0, 0)
    one = await client.embeddings.create(model="demo", input="a face", user="somebody")
    np.testing.assert_allclose(one.data[0].embedding, expected[1], atol=1e-6)


async def test_both_formats_are_the_same_numbers(
    client: openai.AsyncOpenAI, demo_http: httpx.AsyncClient
) -> None:
    body = {"model": "clip", "input": "a face"}
    floats = (await demo_http.post("/v1/embeddings", json=body)).json()["data"][0]["embedding"]
    packed = await demo_http.post("/v1/embeddings", json={**body, "encoding_format": "base64"})
    decoded = np.frombuffer(base64.b64decode(packed.json()["data"][0]["embedding"]), "<f4")
    np.testing.assert_array_equal(np.array(floats, np.float32), decoded)
    asked = await client.embeddings.create(model="clip", input="a face", encoding_format="float")
    np.testing.assert_array_equal(np.array(asked.data[0].embedding, np.float32), decoded)


async def test_images_among_texts_keep_their_places(
    client: openai.AsyncOpenAI, demo_client: AsyncClient
) -> None:
    # A small image is a short string, which is read in another way.
    small, large = data_uri("PNG", 8), data_uri("JPEG")
    assert len(small) < 1024 < len(large)
    found = await client.embeddings.create(model="clip", input=[large, "a face", small])
    rows = [item.embedding for item in found.data]
    files = [base64.b64decode(uri.partition(",")[2]) for uri in (large, small)]
    np.testing.assert_allclose([rows[0], rows[2]], await demo_client.embed_images(files), atol=1e-6)
    np.testing.assert_allclose([rows[1]], await demo_client.embed_texts(["a face"]), atol=1e-6)


async def test_dimensions_may_be_the_models_own(client: openai.AsyncOpenAI) -> None:
    size = len((await client.embeddings.create(model="clip", input="a")).data[0].embedding)
    same = await client.embeddings.create(model="clip", input="a", dimensions=size)
    assert len(same.data[0].embedding) == size
    with pytest.raises(openai.BadRequestError) as caught:
        await client.embeddings.create(model="clip", input="a", dimensions=size - 1)
    assert caught.value.param == "dimensions"
    assert f"must be {size}" in caught.value.message


async def test_long_texts_are_cut_where_that_is_asked_for(
    client: openai.AsyncOpenAI, demo_client: AsyncClient
) -> None:
    long = "a face " * 100
    found = await client.embeddings.create(model="clip", input=long, extra_body={"truncate": True})
    expected = await demo_client.embed_texts([long], truncate=True)
    np.testing.assert_allclose([found.data[0].embedding], expected, atol=1e-6)


async def test_an_unknown_model_is_not_found(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await client.embeddings.create(model="text-embedding-3-small", input="a")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert "there is demo" in caught.value.message


@pytest.mark.parametrize(
    ("changes", "param", "says"),
    [
        ({"input": None}, "input", "is missing"),
        ({"input": []}, "input", "is missing"),
        ({"input": [1, 2, 3]}, "input", "lists of tokens"),
        ({"input": [[1, 2], [3]]}, "input", "lists of tokens"),
        ({"input": ["a", {}]}, "input[1]", "must be a string"),
        ({"input": ["a", ""]}, "input[1]", "is empty"),
        ({"input": ["a face " * 100]}, "input[0]", "tokens, start and end counted; the limit is"),
        ({"truncate": "yes"}, "truncate", "must be true or false"),
        ({"input": ["a", "data:image/png;base64,AAAA"]}, "input[1]", "not an image"),
        ({"input": ["a"] * 1025}, "input", "has 1025 texts; the limit is 1024"),
        ({"input": ["a"] * 2049}, "input", "has 2049 items; the limit is 2048"),
        ({"model": None}, "model", "is missing"),
        ({"model": 3}, "model", "is missing"),
        ({"encoding_format": "int8"}, "encoding_format", "float or base64"),
    ],
)
async def test_errors_are_in_their_form(
    demo_http: httpx.AsyncClient, changes: dict[str, Any], param: str, says: str
) -> None:
    response = await demo_http.post("/v1/embeddings", json={"model": "clip", "input": "a", **changes})
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["code"]) == (400, "invalid_request_error", None)
    assert error["param"] == param
    assert error["message"].startswith(f"{param}: ")
    assert says in error["message"]

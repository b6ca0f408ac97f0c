"""CLIP's routes against the same questions over gRPC."""

import base64
from typing import Any

import httpx
import numpy as np
import pytest

from recorded_calls import answer, refusal
from visiongate import AsyncClient, Text


def encoded(picture: bytes) -> dict[str, str]:
    return {"type": "base64", "value": base64.b64encode(picture).decode()}


@pytest.mark.parametrize(("name", "count"), [("clip_embed_image", 1), ("clip_embed_images", 2)])
async def test_image_embeddings_are_the_models_own(
    sdk_http: httpx.AsyncClient, demo_client: AsyncClient, picture: bytes, name: str, count: int
) -> None:
    found = await answer(sdk_http, name, picture)
    expected = await demo_client.embed_images([picture], normalize=False)
    np.testing.assert_allclose(found["embeddings"], np.repeat(expected, count, 0), atol=1e-5)
    assert abs(np.linalg.norm(expected) - 1) > 0.01
    # Without this field, though it is empty, the SDK fails.
    assert found["frame_id"] is None
    assert found["time"] > 0


@pytest.mark.parametrize(
    ("name", "texts"),
    [("clip_embed_text", ["a red circle"]), ("clip_embed_texts", ["a red circle", "a face"])],
)
async def test_text_embeddings_are_the_models_own(
    sdk_http: httpx.AsyncClient, demo_client: AsyncClient, name: str, texts: list[str]
) -> None:
    found = await answer(sdk_http, name, b"")
    expected = await demo_client.embed_texts(texts, normalize=False)
    np.testing.assert_allclose(found["embeddings"], expected, atol=1e-5)


async def test_long_texts_are_cut(sdk_http: httpx.AsyncClient, demo_client: AsyncClient) -> None:
    long = "a red circle " * 200
    found = await answer(sdk_http, "clip_embed_text", b"", text=long)
    expected = await demo_client.embed_texts([long], truncate=True, normalize=False)
    np.testing.assert_allclose(found["embeddings"], expected, atol=1e-5)


async def test_comparisons(sdk_http: httpx.AsyncClient, demo_client: AsyncClient, picture: bytes) -> None:
    texts = await answer(sdk_http, "clip_compare_texts", picture)
    expected = await demo_client.compare(picture, [Text("a red circle"), Text("a face")])
    assert texts["similarity"] == pytest.approx(list(expected), abs=1e-5)
    images = await answer(sdk_http, "clip_compare_images", picture)
    assert images["similarity"] == pytest.approx([expected[1]] * 2, abs=1e-5)
    named = await answer(sdk_http, "clip_compare_named", picture, prompt={"a": "a red circle", "b": "a face"})
    assert named["similarity"] == pytest.approx({"a": expected[0], "b": expected[1]}, abs=1e-5)
    images_named = await answer(
        sdk_http, "clip_compare_images", picture, prompt={"type": encoded(picture), "b": encoded(picture)}
    )
    assert images_named["similarity"] == pytest.approx({"type": expected[1], "b": expected[1]}, abs=1e-5)


async def test_one_image_and_one_text_as_prompts(sdk_http: httpx.AsyncClient, picture: bytes) -> None:
    same = await answer(sdk_http, "clip_compare_texts", picture, prompt=encoded(picture), prompt_type="image")
    assert same["similarity"] == pytest.approx([1], abs=1e-5)
    text = await answer(sdk_http, "clip_compare_texts", picture, prompt="a face")
    assert len(text["similarity"]) == 1


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("clip_embed_image", {"image": None}, "image: is missing"),
        ("clip_embed_image", {"image": encoded(b"no image")}, "image.value: The data is not an image"),
        ("clip_embed_images", {"image": [encoded(b"no image")]}, "image[0].value: The data is not an image"),
        ("clip_embed_image", {"clip_version_id": "ViT-B-16"}, "clip_version_id: no variant 'vit_b_16'"),
        ("clip_embed_image", {"clip_version_id": 16}, "clip_version_id: must be the name"),
        ("clip_embed_text", {"text": None}, "text: is missing"),
        ("clip_embed_text", {"text": 7}, "text: must be a string, and is a number"),
        ("clip_embed_text", {"text": ""}, "text: is empty"),
        ("clip_embed_texts", {"text": ["a", 7]}, "text[1]: must be a string"),
        ("clip_compare_texts", {"prompt": ["a", ""]}, "prompt[1]: is empty"),
        ("clip_compare_texts", {"prompt": ["a"] * 2049}, "prompt: has 2049 items; the limit is 2048"),
        ("clip_compare_texts", {"prompt": ["a"] * 1025}, "prompt: has 1025 texts; the limit is 1024"),
        ("clip_embed_images", {"image": [encoded(b"x")] * 2049}, "image: has 2049 items"),
        ("clip_embed_images", {"image": [encoded(b"x")] * 65}, "image: has 65 images; the limit is 64"),
        ("clip_compare_named", {"prompt": {"one": 1}}, "prompt.one: must be a string"),
        ("clip_compare_texts", {"subject": "a"}, "subject: must be {"),
        ("clip_compare_texts", {"subject": encoded(b"x")}, "subject.value: The data is not an image"),
        ("clip_compare_texts", {"prompt_type": "sound"}, "prompt_type: must be one of image, text"),
    ],
)
async def test_errors_name_the_callers_fields(
    sdk_http: httpx.AsyncClient, picture: bytes, name: str, changes: dict[str, Any], says: str
) -> None:
    status, message = await refusal(sdk_http, name, picture, **changes)
    assert status == 400
    assert message.startswith(says)

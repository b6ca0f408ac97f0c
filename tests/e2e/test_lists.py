"""Lists through a real gateway: an item that cannot be used has its own error, and others are answered."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from skimage import data as skimage_data

from gateway.server import Gateway
from gateway.settings import Settings
from visiongate import (
    AsyncClient,
    ImageHandle,
    ImageId,
    ImageNotCachedError,
    InvalidArgumentError,
    Text,
    VisiongateError,
)
from visiongate.operations import Operation, embedding, text
from wire import assert_refused, copied

PHOTO = skimage_data.coffee()
SMALL = skimage_data.astronaut()[::2, ::2]
DAMAGED = b"not an image"
UNKNOWN = ImageHandle(ImageId("0" * 64), 1, 1)
LONG = "word " * 100


def images(items: list[Any]) -> dict[str, Operation[Any]]:
    """The methods that take a list of images."""
    return {
        "embed": embedding.embed_images(items, strict=False),
        "compare": embedding.compare(SMALL, items, strict=False),
        "classify": embedding.classify(items, ["cup", "astronaut"], strict=False),
        "read": text.recognize_text(items, strict=False),
    }


METHODS = list(images([PHOTO]))
LIST = {"embed": "images", "compare": "candidates", "classify": "images", "read": "images"}


def places(answer: Any) -> set[int]:
    """The items that have no result."""
    if isinstance(answer, np.ndarray):
        return {index for index, row in enumerate(answer) if np.isnan(row).all()}
    return {index for index, item in enumerate(answer) if not getattr(item, "blocks", item)}


@pytest.mark.parametrize("method", METHODS)
async def test_each_broken_image_has_its_error_and_the_others_their_answer(
    client: AsyncClient, method: str
) -> None:
    whole = await client.call(images([PHOTO, SMALL])[method])
    answer = await client.call(images([PHOTO, DAMAGED, UNKNOWN, SMALL])[method])
    assert set(answer.errors) == {1, 2}
    assert isinstance(answer.errors[1], InvalidArgumentError)
    assert isinstance(answer.errors[2], ImageNotCachedError)
    path = f"{LIST[method]}[1]" + (".image" if method == "compare" else "")
    assert answer.errors[1].field == f"{path}.encoded"
    assert answer.errors[1].request_id == answer.info.request_id != ""
    assert answer.errors[2].reason == "IMAGE_NOT_CACHED"
    assert [image is None for image in answer.info.images] == [False, True, True, False]
    if isinstance(whole, np.ndarray):
        assert places(answer) == {1, 2}
        np.testing.assert_allclose(answer[[0, 3]], whole, atol=1e-5)
    elif method == "classify":
        assert [[label.label for label in labels] for labels in answer] == [
            [label.label for label in whole[0]], [], [], [label.label for label in whole[1]]
        ]  # fmt: skip
    else:
        assert [page.text for page in answer] == [whole[0].text, "", "", whole[1].text]


@pytest.mark.parametrize("method", METHODS)
async def test_a_strict_call_fails_with_the_first_broken_item(client: AsyncClient, method: str) -> None:
    operation = copied(images([PHOTO, DAMAGED, SMALL])[method])
    operation.request.strict = True  # type: ignore[attr-defined]
    path = f"{LIST[method]}[1]" + (".image" if method == "compare" else "")
    await assert_refused(client, operation, f"{path}.encoded", "not an image")


@pytest.mark.parametrize("method", METHODS)
async def test_where_nothing_can_be_used_all_have_errors(client: AsyncClient, method: str) -> None:
    answer = await client.call(images([DAMAGED, b""])[method])
    assert set(answer.errors) == {0, 1}
    assert "is empty" in answer.errors[1].message


async def test_texts_and_images_fail_each_at_its_place(client: AsyncClient) -> None:
    things = [Text("a cup"), Text(LONG), PHOTO, DAMAGED, Text(" "), Text("an astronaut")]
    answer = await client.compare(SMALL, things, strict=False)
    assert {index: error.field for index, error in answer.errors.items()} == {
        1: "candidates[1].text", 3: "candidates[3].image.encoded", 4: "candidates[4].text"
    }  # fmt: skip
    whole = await client.compare(SMALL, [things[0], things[2], things[5]])
    np.testing.assert_allclose(answer[[0, 2, 5]], whole, atol=1e-6)
    assert answer.info.subject_image is not None
    texts = await client.embed_texts(["a cup", LONG, "", "an astronaut"], strict=False)
    assert {index: error.field for index, error in texts.errors.items()} == {1: "texts[1]", 2: "texts[2]"}
    np.testing.assert_allclose(texts[[0, 3]], await client.embed_texts(["a cup", "an astronaut"]), atol=1e-6)


@pytest.mark.parametrize(
    ("operation", "field", "says"),
    [
        (embedding.compare(DAMAGED, [PHOTO], strict=False), "subject.image.encoded", "not an image"),
        (embedding.compare(Text(LONG), [PHOTO], strict=False), "subject.text", "the limit is 77"),
        (embedding.classify([PHOTO], ["cup", LONG], strict=False), "labels[1]", "the limit is 77"),
        (embedding.classify([PHOTO], ["cup", ""], strict=False), "labels[1]", "is empty"),
        (embedding.embed_images([DAMAGED], model="giant", strict=False), "model", "tiny"),
    ],
)
async def test_what_concerns_all_items_fails_the_call(
    client: AsyncClient, operation: Operation[Any], field: str, says: str
) -> None:
    await assert_refused(client, operation, field, says)


async def test_an_image_without_a_source_is_an_item_s_error(client: AsyncClient) -> None:
    operation = copied(embedding.embed_images([PHOTO, SMALL], strict=False))
    operation.request.images[1].ClearField("source")  # type: ignore[attr-defined]
    answer = await client.call(operation)
    (error,) = answer.errors.values()
    assert (error.field, "set encoded, raw, image_id or uri" in error.message) == ("images[1]", True)


async def test_on_the_wire_an_item_s_error_is_what_a_failed_call_has(gateway: Gateway) -> None:
    request: Any = embedding.embed_images([PHOTO, DAMAGED], strict=False).request
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        method: Callable[..., Any] = channel.unary_unary(
            "/visiongate.v1.EmbeddingService/EmbedImages",
            request_serializer=type(request).SerializeToString,
            response_deserializer=_response,
        )
        response = await method(request, metadata=(("x-request-id", "mine"),))
        request.strict = True
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(request, metadata=(("x-request-id", "mine"),))
    first, second = response.results
    assert (first.WhichOneof("outcome"), second.WhichOneof("outcome")) == ("embedding", "error")
    trailer = dict(caught.value.trailing_metadata() or ())["grpc-status-details-bin"]
    assert second.error == status_pb2.Status.FromString(trailer)
    named = error_details_pb2.RequestInfo()
    assert any(detail.Unpack(named) for detail in second.error.details)
    assert named.request_id == "mine"


@pytest.fixture(scope="module")
async def lonely(demo_settings: Settings) -> AsyncIterator[AsyncClient]:
    """A client of a gateway whose Triton is away."""
    settings = demo_settings.model_copy(update={"triton_attempts": 1})
    async with Gateway(settings) as gateway, AsyncClient(f"127.0.0.1:{gateway.port}", wait=False) as client:
        await gateway._triton.close()
        yield client


async def test_a_fault_of_the_server_is_no_item_s_error(lonely: AsyncClient) -> None:
    """Callers try such a call again as a whole."""
    with pytest.raises(VisiongateError) as caught:
        await lonely.embed_images([PHOTO, DAMAGED], strict=False)
    assert caught.value.code is not grpc.StatusCode.INVALID_ARGUMENT


def _response(data: bytes) -> Any:
    from visiongate.v1 import embedding_service_pb2

    return embedding_service_pb2.EmbedImagesResponse.FromString(data)

"""Images by their ids, through real gateways: whose ids are good, and for how long."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from prometheus_client import REGISTRY

from gateway.api_keys import ApiKey, write_keys
from gateway.server import Gateway
from gateway.settings import Settings
from inference_counts import InferenceCounts
from visiongate import AsyncClient, ImageHandle, ImageId, ImageNotCachedError, Pixels, VisiongateError
from visiongate.affinity import image_name
from visiongate.operations import Operation, embedding, everything, segmentation, text
from visiongate.operations.image import ImageLike

BOX: Any = [[5, 5, 40, 40]]


def picture(number: int) -> NDArray[np.uint8]:
    """One of many pictures of 12288 bytes."""
    return np.random.default_rng(number).integers(0, 256, (64, 64, 3), np.uint8)


PICTURE_BYTES = picture(0).nbytes


async def refusal(client: AsyncClient, image_id: str) -> VisiongateError:
    with pytest.raises(ImageNotCachedError) as caught:
        await client.segment(ImageHandle(ImageId(image_id), 64, 64), boxes=BOX)
    return caught.value


async def is_known(client: AsyncClient, image: ImageHandle) -> bool:
    """Whether the server has the image's pixels: words need them."""
    try:
        await client.detect(image, ["dog"])
    except ImageNotCachedError:
        return False
    return True


@pytest.fixture
async def callers(demo_settings: Settings, tmp_path: Path) -> AsyncIterator[list[AsyncClient]]:
    """Two callers of one gateway, with a key each."""
    made = [ApiKey.generate(name) for name in "ab"]
    write_keys(tmp_path / "keys.toml", [key for key, _ in made])
    own = demo_settings.model_copy(update={"api_keys": tmp_path / "keys.toml"})
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(Gateway(own))
        address = f"127.0.0.1:{gateway.port}"
        yield [
            await stack.enter_async_context(AsyncClient(address, api_key=key_text)) for _, key_text in made
        ]


async def test_an_id_is_of_no_use_to_another_caller(callers: list[AsyncClient]) -> None:
    a, b = callers
    of_a = await a.encode_image(picture(1))
    assert await a.segment(of_a, boxes=BOX)
    # For b there is no difference between an image that a sent and one that nobody sent.
    never_sent = "0" * 64 + of_a.image_id[64:]
    errors = [await refusal(b, image_id) for image_id in (of_a.image_id, of_a.image_id[:64], never_sent)]
    assert {(error.code, error.reason, error.message, error.field) for error in errors} == {
        (
            grpc.StatusCode.NOT_FOUND,
            "IMAGE_NOT_CACHED",
            "image.image_id: the image is not in the server's cache: send it again",
            "",
        )
    }
    of_b = await b.encode_image(picture(1))
    assert of_b.image_id != of_a.image_id
    assert (await b.segment(of_b, boxes=BOX))[0][0].rle == (await a.segment(of_a, boxes=BOX))[0][0].rle
    assert (await refusal(b, of_a.image_id)).message == errors[0].message


async def test_every_answer_has_the_callers_own_id(callers: list[AsyncClient]) -> None:
    """Whatever the method, and however often others have asked for the same."""
    operations: list[Operation[Any]] = [
        segmentation.encode_image(picture(2)),
        segmentation.segment(picture(2), boxes=BOX),
        everything.segment_everything(picture(2), points_per_side=1),
        segmentation.segment_phrases(picture(2), ["dog"]),
        embedding.embed_images([picture(2)]),
        embedding.classify([picture(2)], ["dog"]),
        embedding.compare(picture(2), [picture(2)]),
        text.recognize_text([picture(2)]),
    ]
    found = [
        {image.image_id for operation in operations for image in (await caller.call(operation)).info.images}
        for caller in (*callers, *callers)
    ]
    assert [len(ids) for ids in found] == [1] * 4
    assert found[0] == found[2] != found[1] == found[3]


async def test_replicas_with_one_secret_know_each_others_ids(demo_settings: Settings, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(range(32)))
    shared = demo_settings.model_copy(update={"image_id_secret": secret})
    async with (
        Gateway(shared) as first,
        Gateway(shared) as second,
        Gateway(demo_settings) as alone,
        AsyncClient(f"127.0.0.1:{first.port}") as of_first,
        AsyncClient(f"127.0.0.1:{second.port}") as of_second,
        AsyncClient(f"127.0.0.1:{alone.port}") as of_alone,
    ):
        image = await of_first.encode_image(picture(3))
        # An id holds no image: a replica that has none says so.
        await refusal(of_second, image.image_id)
        assert (await of_second.encode_image(picture(3))).image_id == image.image_id
        assert await of_second.segment(image, boxes=BOX)
        # A gateway without a secret file has a secret of its own.
        assert (await of_alone.encode_image(picture(3))).image_id != image.image_id
        await refusal(of_alone, image.image_id)


async def test_an_id_works_as_long_as_the_embedding_is_kept(
    settings: Settings, counts: InferenceCounts
) -> None:
    own = settings.model_copy(update={"image_cache_bytes": PICTURE_BYTES})
    async with Gateway(own) as gateway, AsyncClient(f"127.0.0.1:{gateway.port}") as client:
        images = [await client.encode_image(picture(number)) for number in range(10, 14)]
        expected = [await client.segment(picture(number), boxes=BOX) for number in range(10, 14)]
        everything = await client.segment_everything(picture(10), points_per_side=2, min_stability_score=0)
        before = await counts.settled_soon("sam_encoder")
        assert [await is_known(client, image) for image in images] == [True, False, False, False]
        found = [await client.segment(image, boxes=BOX) for image in images]
        assert [[mask.rle for mask in region] for (region,) in found] == [
            [mask.rle for mask in region] for (region,) in expected
        ]
        info = found[1].info.image
        assert (info.image_id, info.width, info.height) == (images[1].image_id, 64, 64)
        again = await client.encode_image(images[1])
        assert again == images[1]
        # Without its pixels as well.
        await client.encode_image(picture(13))
        assert not await is_known(client, images[0])
        again_everything = await client.segment_everything(
            images[0], points_per_side=2, min_stability_score=0
        )
        assert [item.mask.rle for item in again_everything] == [item.mask.rle for item in everything]
        assert await counts.settled_soon("sam_encoder") == before
        # Crops are cut out of the pixels, and another model has not seen the image.
        with pytest.raises(ImageNotCachedError):
            await client.segment_everything(images[0], points_per_side=2, crop_layers=1)
        with pytest.raises(ImageNotCachedError):
            await client.segment(images[0], boxes=BOX, model="hiera_toy")


async def test_what_is_wrong_with_prompts_is_said_without_pixels_too(settings: Settings) -> None:
    own = settings.model_copy(update={"image_cache_bytes": 0})
    async with Gateway(own) as gateway, AsyncClient(f"127.0.0.1:{gateway.port}") as client:
        image = await client.encode_image(picture(20)[:40])
        with pytest.raises(VisiongateError, match="outside the image: it must be 0 to 40") as caught:
            await client.segment(image, boxes=[[5, 5, 40, 41]])
        assert caught.value.field == "prompts[0].box.y_max"
        assert (await client.segment(image, boxes=[])).info.image.height == 40


async def test_lists_do_not_push_out_images_that_people_click_on(settings: Settings) -> None:
    own = settings.model_copy(update={"image_cache_bytes": 3 * PICTURE_BYTES})
    async with Gateway(own) as gateway, AsyncClient(f"127.0.0.1:{gateway.port}") as client:
        clicked = [await client.encode_image(picture(number)) for number in (30, 31)]
        many = [picture(number) for number in range(40, 48)]
        answers: list[Any] = [
            await client.embed_images(many),
            await client.classify(many, ["dog"]),
            await client.compare(many[0], many),
            await client.recognize_text(many[:3]),
        ]
        assert [await is_known(client, image) for image in clicked] == [True, True]
        # One of the last list has the room that is left.
        pages = [ImageHandle(ImageId(image.image_id), 64, 64) for image in answers[3].info.images]
        assert sorted([await is_known(client, page) for page in pages]) == [False, False, True]


async def test_crops_do_not_push_out_embeddings(settings: Settings) -> None:
    def held() -> float:
        return REGISTRY.get_sample_value("visiongate_cache_bytes", {"cache": "sam_embedding"}) or 0

    async with Gateway(settings) as gateway, AsyncClient(f"127.0.0.1:{gateway.port}") as client:
        await client.encode_image(picture(50))
        one = held()
        assert one > 0
        await client.segment_everything(picture(51), points_per_side=2, crop_layers=1)
        assert held() == 2 * one


@pytest.mark.parametrize(
    "image",
    [
        picture(1),
        Pixels(picture(1), color="bgr"),
        picture(1)[:, :, 0],
        Image.fromarray(picture(1)),
    ],
    ids=["rgb", "bgr", "grey", "file"],
)
async def test_an_id_begins_with_the_name_by_which_proxies_know_the_image(
    demo_client: AsyncClient, image: ImageLike
) -> None:
    sent = segmentation.encode_image(image)
    handle = await demo_client.call(sent)
    name = image_name(sent.request)
    assert len(name) == 64
    assert handle.image_id.startswith(name)
    assert image_name(segmentation.encode_image(handle).request) == name

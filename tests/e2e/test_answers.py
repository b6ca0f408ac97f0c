"""What comes with answers, answers to nothing and to several requests, through a real gateway."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from skimage import data as skimage_data

from visiongate import AnswerInfo, AsyncClient, ImageHandle, ImageId, ImageInfo, Text
from visiongate.operations import Operation, detection, embedding, everything, gaze, segmentation, text
from visiongate.v1 import gaze_service_pb2
from wire import copied

PHOTO = skimage_data.coffee()[:-6]  # 600 x 394
SMALL = skimage_data.chelsea()[:40, :60]


async def info(client: AsyncClient, operation: Operation[Any]) -> AnswerInfo:
    found: AnswerInfo = (await client.call(operation)).info
    return found


@pytest.mark.parametrize(
    ("operation", "detection_model"),
    [
        (detection.detect(PHOTO, ["cup"]), ""),
        (segmentation.segment(PHOTO, boxes=[[20, 30, 300, 350]]), ""),
        (segmentation.segment_phrases(PHOTO, ["cup"]), "tiny"),
        (everything.segment_everything(PHOTO, points_per_side=1), ""),
        (segmentation.encode_image(PHOTO), ""),
        (embedding.embed_images([PHOTO]), ""),
        (embedding.compare(Text("a cup"), [PHOTO]), ""),
        (embedding.classify([PHOTO], ["cup"]), ""),
        (gaze.estimate_gaze(PHOTO), "tiny"),
        (gaze.estimate_gaze(PHOTO, boxes=[[20, 30, 300, 350]]), ""),
        (text.recognize_text([PHOTO]), ""),
    ],
)
async def test_what_comes_with_an_answer(
    client: AsyncClient, operation: Operation[Any], detection_model: str
) -> None:
    found = await info(client, operation)
    (image,) = found.images
    assert image == found.image
    assert (image.width, image.height, len(image.image_id)) == (600, 394, 96)
    assert (found.model, found.detection_model) == ("tiny", detection_model)
    assert found.timings is not None
    assert found.timings.decode_ms > 0


async def test_the_named_variant_is_the_one_told(client: AsyncClient) -> None:
    """As `list_models` names them."""
    variants = [model.variant for model in await client.list_models() if model.task == "segmentation"]
    assert len(variants) > 1
    for variant in variants:
        assert (await client.segment(PHOTO, boxes=[[1, 1, 9, 9]], model=variant)).info.model == variant
        found = await client.segment_phrases(PHOTO, ["cup"], segmentation_model=variant, min_score=1)
        assert (len(found), found.info.model) == (0, variant)


async def test_texts_have_no_images(client: AsyncClient) -> None:
    found = (await client.embed_texts(["a cat"])).info
    assert (found.model, found.images) == ("tiny", ())
    assert (await client.list_models()).info.model == ""


async def test_compared_images_are_told_in_order(client: AsyncClient) -> None:
    info = (await client.compare(SMALL, [Text("a"), PHOTO, Text("b"), SMALL])).info
    images = [info.subject_image, *info.images]
    sizes = [image and (image.width, image.height) for image in images]
    assert sizes == [(60, 40), None, (600, 394), None, (60, 40)]


async def test_an_image_id_of_any_answer_names_the_image(client: AsyncClient) -> None:
    image = (await client.detect(PHOTO, ["cup"])).info.image
    assert isinstance(image, ImageInfo)
    kept = ImageHandle(ImageId(image.image_id), image.width, image.height)
    assert (await client.embed_images([kept]) == await client.embed_images([PHOTO])).all()


async def test_nothing_asked_is_nothing_answered(client: AsyncClient) -> None:
    assert await client.segment(PHOTO, boxes=[]) == []
    assert await client.segment(PHOTO, boxes=np.zeros((0, 4)), points=[]) == []
    assert await client.estimate_gaze(PHOTO, boxes=[]) == []
    assert await client.classify([], ["cat"]) == []
    assert await client.recognize_text([]) == []
    nothing = await client.embed_images([])
    size = (await client.embed_images([PHOTO])).shape[1]
    assert (nothing.shape, nothing.info.model) == ((0, size), "tiny")
    assert nothing.dtype == np.float32
    assert (await client.embed_texts([])).shape == (0, size)
    assert (await client.compare(PHOTO, [])).shape == (0,)
    assert (await client.compare(Text("a cat"), [])).shape == (0,)


async def test_no_boxes_at_all_is_a_search(client: AsyncClient) -> None:
    search: Any = gaze.estimate_gaze(PHOTO)
    bare = copied(search)
    bare.request.ClearField("query")
    found = await client.call(bare)
    assert len(found) > 0
    assert found.info.detection_model == "tiny"
    nothing = await client.estimate_gaze(PHOTO, boxes=[])
    assert (nothing, nothing.info.image.width) == ([], 600)
    assert isinstance(bare.request, gaze_service_pb2.EstimateGazeRequest)


async def test_prompts_may_differ(client: AsyncClient) -> None:
    box, points = [20, 30, 300, 350], [[400, 200], [410, 250]]
    ((by_box,), (by_points,)) = await client.segment(
        PHOTO, boxes=[box, None], points=[None, points], labels=[None, [1, 0]]
    )
    assert by_box.rle == (await client.segment(PHOTO, boxes=[box]))[0][0].rle
    alone = await client.segment(PHOTO, points=[points], labels=[[1, 0]], include_logits=True)
    assert by_points.rle == alone[0][0].rle
    (_, (refined,)) = await client.segment(
        PHOTO,
        boxes=[box, None],
        points=[[], points],
        labels=[[], [1, 0]],
        mask_logits=[None, alone[0][0].logits],
    )
    assert refined.rle != alone[0][0].rle


async def test_many_images_are_answered_in_order(client: AsyncClient) -> None:
    pictures = [np.roll(SMALL, index, axis=1) for index in range(70)]
    operation = embedding.embed_images(pictures)
    assert len(operation.more) == 1
    response, further = [
        await client.call(
            Operation(operation.method, request, operation.response_type, lambda message, request_id: message)
        )
        for request in (operation.request, *operation.more)
    ]
    spent = response.timings.decode_ms + further.timings.decode_ms
    operation.merge(response, further)
    found = operation.parse(response, "")
    assert found.shape[0] == len(found.info.images) == 70
    for index in (0, 63, 64, 69):
        alone = await client.embed_images([pictures[index]])
        np.testing.assert_allclose(found[index], alone[0], atol=1e-5)
    assert found.info.timings is not None
    assert found.info.timings.decode_ms == pytest.approx(spent)


async def test_an_operation_says_all_there_is_to_merge(client: AsyncClient) -> None:
    operation = embedding.classify([SMALL] * 65, ["cat", "dog"], top_k=1)
    assert [len(request.images) for request in (operation.request, *operation.more)] == [64, 1]  # type: ignore[attr-defined]
    first = await client.call(replace(operation, more=(), parse=lambda message, request_id: message))
    assert len(first.results) == 64  # type: ignore[attr-defined]

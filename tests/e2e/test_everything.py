"""SegmentEverything through gRPC, gateway and Triton against transformers' pipeline, same weights."""

import asyncio
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data as skimage_data
from skimage import measure

from export.weights import Options
from inference_counts import InferenceCounts
from reference import SamReference
from visiongate import AsyncClient, GridMask, VisiongateError
from visiongate.operations import everything
from wire import assert_refused, changed

PHOTO = skimage_data.coffee()


@pytest.fixture(scope="module")
def reference() -> SamReference:
    return SamReference(Options(weights="random", size="tiny"))


def assert_same(found: list[GridMask], expected: Any) -> None:
    masks, scores, boxes = expected
    assert len(found) == len(masks)
    np.testing.assert_allclose([item.mask.predicted_iou for item in found], scores, atol=1e-4)
    # Rounding may swap masks of nearly the same predicted IoU: each is found once, with its own numbers.
    left = list(range(len(masks)))
    for item in found:
        pixels = item.mask.pixels
        # Pixels whose logit is within rounding of zero may fall on either side.
        alike = [k for k in left if np.mean(pixels != masks[k]) < 1e-3]
        assert alike
        left.remove(alike[0])
        assert item.mask.predicted_iou == pytest.approx(scores[alike[0]], abs=1e-4)
        np.testing.assert_allclose(item.mask.box - [0, 0, 1, 1], boxes[alike[0]], atol=1)
        assert item.mask.area == pixels.sum() > 0


# Seeded weights give masks all over the image, of logits near zero: at the defaults next to nothing is left.
@pytest.mark.parametrize(
    ("asked", "least"),
    [
        ({"min_predicted_iou": 0.68, "min_stability_score": 0.4, "nms_iou_threshold": 1.0}, 5),
        ({"min_predicted_iou": 0.0, "min_stability_score": 0.85, "nms_iou_threshold": 1.0}, 5),
        ({"min_predicted_iou": 0.7, "min_stability_score": 0.5}, 1),
        (
            {
                "min_predicted_iou": 0.6,
                "min_stability_score": 0.4,
                "nms_iou_threshold": 1.0,
                "points_per_side": 4,
                "crop_layers": 1,
            },
            5,
        ),
        ({}, 0),
    ],
)
@pytest.mark.parametrize("size", [(600, 400), (97, 251)])
async def test_equals_the_reference(
    client: AsyncClient, reference: SamReference, size: tuple[int, int], asked: dict[str, Any], least: int
) -> None:
    image = Image.fromarray(PHOTO).resize(size)
    asked = {"points_per_side": 8, "stability_offset": 0.02} | asked
    found = await client.segment_everything(image, **asked)
    expected = reference.everything(
        image,
        points_per_crop=asked["points_per_side"],
        crops_n_layers=asked.get("crop_layers", 0),
        pred_iou_thresh=asked.get("min_predicted_iou", 0.88),
        stability_score_thresh=asked.get("min_stability_score", 0.95),
        stability_score_offset=asked["stability_offset"],
        crops_nms_thresh=asked.get("nms_iou_threshold", 0.7),
    )
    assert len(expected[0]) >= least
    assert_same(found, expected)


async def test_each_mask_is_that_of_its_point(client: AsyncClient) -> None:
    found = await client.segment_everything(
        PHOTO,
        points_per_side=3,
        min_predicted_iou=0,
        min_stability_score=0,
        stability_offset=0.02,
        nms_iou_threshold=1,
    )
    assert len(found) == 27
    points = sorted({tuple(item.point.tolist()) for item in found})
    np.testing.assert_allclose(points, [(x, y / 6) for x in (100, 300, 500) for y in (400, 1200, 2000)])
    for item in found[::5]:
        ((*asked,),) = await client.segment(PHOTO, points=[[item.point]], multimask=True)
        assert min(np.mean(mask.pixels != item.mask.pixels) for mask in asked) < 1e-3
        assert 0 <= item.stability_score <= 1


async def test_the_best_masks_within_a_limit(client: AsyncClient) -> None:
    asked: dict[str, Any] = {"points_per_side": 4, "min_predicted_iou": 0.5, "min_stability_score": 0}
    every = await client.segment_everything(PHOTO, **asked, nms_iou_threshold=1)
    some = await client.segment_everything(PHOTO, **asked, nms_iou_threshold=1, max_masks=5)
    assert len(every) > 5
    assert [item.as_dict() for item in some] == [item.as_dict() for item in every[:5]]
    areas = sorted(item.mask.area for item in every)
    large = await client.segment_everything(PHOTO, **asked, nms_iou_threshold=1, min_mask_area=areas[3])
    assert len(large) == sum(area >= areas[3] for area in areas)


async def test_small_regions_are_mended(client: AsyncClient) -> None:
    asked: dict[str, Any] = {"points_per_side": 3, "min_predicted_iou": 0, "min_stability_score": 0}
    found = await client.segment_everything(PHOTO, **asked, nms_iou_threshold=1, min_region_area=200)
    assert found
    for item in found:
        for looked_at in (item.mask.pixels, ~item.mask.pixels):
            areas = np.bincount(measure.label(looked_at, connectivity=2).ravel())[1:]
            assert len(areas) <= 1 or (areas >= 200).all()


async def test_points_share_decoder_calls_and_the_whole_image_is_encoded_once(
    client: AsyncClient, counts: InferenceCounts
) -> None:
    models = ("sam_encoder", "sam_decoder")
    before = [(await counts.settled_soon(model)).inferences for model in models]

    async def assert_counted(*expected: int) -> None:
        for model, old, new in zip(models, before, expected, strict=True):
            assert (await counts.settled_soon(model, old + new)).inferences - old == new

    # 32 points a call; the whole image and four crops.
    await client.segment_everything(PHOTO[:-5], points_per_side=8, crop_layers=1)
    await assert_counted(5, 10)
    await client.segment_everything(PHOTO[:-5], points_per_side=8, crop_layers=1)
    # Crops are not kept.
    await assert_counted(9, 20)


async def test_a_cancelled_call_asks_no_more(client: AsyncClient, counts: InferenceCounts) -> None:
    photo = await client.encode_image(PHOTO)
    before = (await counts.settled_soon("sam_decoder")).inferences
    call = asyncio.create_task(client.segment_everything(photo, points_per_side=128, min_stability_score=0))
    while counts.now("sam_decoder").inferences == before:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    # What was under way may end; then nothing more comes, of 512 calls.
    assert (await counts.settled_soon("sam_decoder")).inferences - before < 400


@pytest.mark.parametrize(
    ("keywords", "field", "says"),
    [
        ({"points_per_side": 0}, "points_per_side", "is 0; it must be 1 to 128"),
        ({"points_per_side": 129}, "points_per_side", "is 129; it must be 1 to 128"),
        ({"crop_layers": 4}, "crop_layers", "is 4; it must be 0 to 3"),
        ({"crop_overlap_ratio": 1}, "crop_overlap_ratio", "is 1; it must be 0 to less than 1"),
        ({"crop_points_downscale": 0}, "crop_points_downscale", "is 0; it must be 1 to 128"),
        ({"min_predicted_iou": 1.5}, "min_predicted_iou", "is 1.5; it must be 0 to 1"),
        ({"min_stability_score": float("nan")}, "min_stability_score", "is nan; it must be 0 to 1"),
        ({"stability_offset": 0}, "stability_offset", "is 0; it must be over 0, to 100"),
        ({"nms_iou_threshold": -0.5}, "nms_iou_threshold", "is -0.5; it must be 0 to 1"),
        ({"max_masks": 0}, "max_masks", "is 0; it must be 1 or more"),
        (
            {"points_per_side": 128, "crop_layers": 1},
            "points_per_side",
            "and crop_layers make 81920 points; the limit is 25000",
        ),
        ({"model": "vit_x"}, "model", "no variant 'vit_x' of sam"),
    ],
)
async def test_what_cannot_be_meant_is_refused(
    client: AsyncClient, keywords: dict[str, Any], field: str, says: str
) -> None:
    await assert_refused(client, changed(everything.segment_everything(PHOTO), keywords), field, says)


async def test_an_unknown_format_is_refused(client: AsyncClient) -> None:
    operation: Any = everything.segment_everything(PHOTO)
    operation.request.mask_format = 99
    with pytest.raises(VisiongateError) as caught:
        await client.call(operation)
    assert caught.value.field == "mask_format"

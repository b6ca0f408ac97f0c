"""SAM 2.1 behind the same API, beside SAM: each answer against transformers' Sam2Model, same weights."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage import data as skimage_data

from export.weights import Options
from gateway.models.sam import SamSpec
from gateway.models.sam_everything import GridOptions, candidates, crops, suppress
from reference import Sam2Reference
from visiongate import AsyncClient, Mask

MODEL = "hiera_toy"
PHOTO = skimage_data.coffee()
SPEC = SamSpec(image_size=128, mask_size=32, stretches=True, pads_boxes=True)


@pytest.fixture(scope="module")
def reference() -> Sam2Reference:
    return Sam2Reference(Options(weights="random", size="tiny"))


def assert_same(mask: Mask, pixels: NDArray[np.bool_], predicted_iou: float) -> None:
    assert mask.pixels.shape == pixels.shape
    # Pixels whose logit is within rounding of zero may fall on either side.
    assert np.mean(mask.pixels != pixels) < 1e-3
    assert mask.predicted_iou == pytest.approx(predicted_iou, abs=1e-4)


async def test_it_stands_beside_sam(client: AsyncClient) -> None:
    models = [model for model in await client.list_models() if model.task == "segmentation"]
    assert [(model.family, model.variant, model.is_default, model.input_size) for model in models] == [
        ("sam", "tiny", True, 128),
        ("sam2", MODEL, False, 128),
    ]
    boxes = [[20, 30, 300, 350]]
    ((default,),) = await client.segment(PHOTO, boxes=boxes)
    ((one,),) = await client.segment(PHOTO, boxes=boxes, model="tiny")
    ((two,),) = await client.segment(PHOTO, boxes=boxes, model=MODEL)
    assert default.rle == one.rle != two.rle


@pytest.mark.parametrize("size", [(600, 400), (97, 251), (64, 3)])
async def test_prompts_equal_the_reference(
    client: AsyncClient, reference: Sam2Reference, size: tuple[int, int]
) -> None:
    image = Image.fromarray(PHOTO).resize(size)
    scale = np.array(size) / (600, 400)
    boxes = (np.array([[20, 30, 300, 350], [100, 5, 580, 390]]) * np.tile(scale, 2)).astype(np.float32)
    points: Any = (
        np.array([[[150.0, 120.5], [310.0, 33.0]], [[400.0, 200.0], [10.0, 390.0]]]) * scale
    ).tolist()
    labels = [[1, 0], [1, 1]]
    prompts: list[dict[str, Any]] = [
        {"boxes": boxes},
        {"points": points, "labels": labels},
        {"boxes": boxes, "points": points, "labels": labels},
    ]
    for prompt in prompts:
        for multimask in (False, True):
            found = await client.segment(
                image, **prompt, multimask=multimask, include_logits=True, model=MODEL
            )
            masks, ious, logits = reference.segment(image, **prompt, multimask=multimask)
            for index, answers in enumerate(found):
                best_first = np.argsort(-ious[index], kind="stable")
                assert len(answers) == len(best_first)
                for mask, k in zip(answers, best_first, strict=True):
                    assert_same(mask, masks[index, k], ious[index, k])
                    assert mask.logits is not None
                    np.testing.assert_allclose(mask.logits, logits[index, k], atol=1e-3)


async def test_refining_an_earlier_mask_equals_the_reference(
    client: AsyncClient, reference: Sam2Reference
) -> None:
    image = Image.fromarray(PHOTO)
    ((first,),) = await client.segment(image, points=[[[150, 120]]], include_logits=True, model=MODEL)
    assert first.logits is not None
    ((refined,),) = await client.segment(
        image, points=[[[150, 120]]], mask_logits=[first.logits], model=MODEL
    )
    masks, ious, _ = reference.segment(image, points=[[[150, 120]]], labels=[[1]], mask_logits=first.logits)
    assert_same(refined, masks[0, 0], ious[0, 0])
    assert (refined.pixels != first.pixels).any()


async def test_words_to_masks_equal_the_reference(client: AsyncClient, reference: Sam2Reference) -> None:
    image = Image.fromarray(PHOTO)
    found = await client.segment_phrases(
        image, ["cup", "spoon"], min_score=0.5, max_detections=8, segmentation_model=MODEL
    )
    assert found
    masks, ious, _ = reference.segment(image, boxes=np.stack([item.box for item in found]))
    for index, item in enumerate(found):
        assert item.mask is not None
        assert_same(item.mask, masks[index, 0], ious[index, 0])


async def test_everything_equals_its_filters_on_the_reference(
    client: AsyncClient, reference: Sam2Reference
) -> None:
    """Not transformers' pipeline: that places the grid as if images were padded, and they are stretched."""
    choice = GridOptions(4, 1, min_predicted_iou=0.5, min_stability_score=0.3, stability_offset=0.02)
    size = PHOTO.shape[:2]
    expected = []
    for crop in crops(size, choice):
        left, top, right, bottom = crop.box
        part = Image.fromarray(PHOTO[top:bottom, left:right])
        points = crop.points[:, None].tolist()
        _, ious, logits = reference.segment(part, points=points, labels=[[1]] * len(points), multimask=True)
        for index in range(len(points)):
            expected += candidates(SPEC, logits[index], ious[index], index, crop, size, choice)
    expected = suppress(expected, choice.nms_iou_threshold)
    found = await client.segment_everything(
        PHOTO,
        points_per_side=4,
        crop_layers=1,
        min_predicted_iou=0.5,
        min_stability_score=0.3,
        stability_offset=0.02,
        model=MODEL,
    )
    assert len(found) == len(expected) > 0
    for item, other in zip(found, expected, strict=True):
        assert_same(item.mask, other.pixels(size), other.predicted_iou)
        np.testing.assert_allclose(item.point, other.point, rtol=1e-6)

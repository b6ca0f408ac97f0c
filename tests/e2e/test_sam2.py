"""SAM 2.1 behind the same API, beside SAM: each answer against transformers' Sam2Model, same weights."""

import numpy as np
import pytest
from PIL import Image
from skimage import data as skimage_data

from export.weights import Options
from gateway.models.sam import SamSpec
from gateway.models.sam_everything import GridOptions, candidates, crops, suppress
from mask_agreement import assert_prompts_agree, assert_refining_agrees, assert_same_mask
from reference import Sam2Reference
from visiongate import AsyncClient

MODEL = "hiera_toy"
PHOTO = skimage_data.coffee()
SPEC = SamSpec(image_size=128, mask_size=32, stretches=True, pads_boxes=True)


@pytest.fixture(scope="module")
def reference() -> Sam2Reference:
    return Sam2Reference(Options(weights="random", size="tiny"))


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
    await assert_prompts_agree(client, reference, Image.fromarray(PHOTO).resize(size), MODEL)


async def test_refining_an_earlier_mask_equals_the_reference(
    client: AsyncClient, reference: Sam2Reference
) -> None:
    await assert_refining_agrees(client, reference, Image.fromarray(PHOTO), MODEL)


async def test_words_to_masks_equal_the_reference(client: AsyncClient, reference: Sam2Reference) -> None:
    image = Image.fromarray(PHOTO)
    found = await client.segment_phrases(
        image, ["cup", "spoon"], min_score=0.5, max_detections=8, segmentation_model=MODEL
    )
    assert found
    masks, ious, _ = reference.segment(image, boxes=np.stack([item.box for item in found]))
    for index, item in enumerate(found):
        assert item.mask is not None
        assert_same_mask(item.mask, masks[index, 0], ious[index, 0])


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
        assert_same_mask(item.mask, other.placed(size).whole(), other.predicted_iou)
        np.testing.assert_allclose(item.point, other.point, rtol=1e-6)

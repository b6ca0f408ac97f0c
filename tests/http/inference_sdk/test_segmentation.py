"""The routes of SAM 2 and SAM 3 against the same questions over gRPC, and in supervision."""

from typing import Any

import httpx
import numpy as np
import pytest
import supervision
from numpy.typing import NDArray
from pycocotools import mask as coco

from recorded_calls import answer, refusal
from visiongate import AsyncClient

BOX = [26, 142, 246, 362]
POINTS, LABELS = [[136, 252], [420, 560]], [1, 0]


def filled(masks: Any, size: tuple[int, int] = (600, 800)) -> NDArray[np.bool_]:
    """What outlines enclose, as supervision draws them."""
    parts = [
        supervision.polygon_to_mask(np.array(part, np.int32), resolution_wh=(size[1], size[0]))
        for part in masks
        if len(part) > 2
    ]
    return np.asarray(np.any(parts, axis=0), bool)


async def test_polygons_of_a_box(
    sdk_http: httpx.AsyncClient, demo_client: AsyncClient, picture: bytes
) -> None:
    found = await answer(sdk_http, "sam2_polygons", picture)
    [[best, *_]] = [
        sorted(masks, key=lambda mask: -mask.predicted_iou)
        for masks in await demo_client.segment(picture, boxes=[BOX], multimask=True)
    ]
    [prediction] = found["predictions"]
    assert prediction["format"] == "polygon"
    assert prediction["confidence"] == pytest.approx(best.predicted_iou, abs=1e-5)
    drawn = filled(prediction["masks"])
    assert (drawn & best.pixels).sum() / (drawn | best.pixels).sum() > 0.98
    areas = [np.prod(np.ptp(np.array(part), axis=0) + 1) for part in prediction["masks"]]
    assert areas == sorted(areas, reverse=True)


async def test_run_lengths_of_points_are_exact(
    sdk_http: httpx.AsyncClient, demo_client: AsyncClient, picture: bytes
) -> None:
    found = await answer(sdk_http, "sam2_rle", picture)
    [[expected]] = await demo_client.segment(picture, points=[POINTS], labels=[LABELS])
    [prediction] = found["predictions"]
    assert prediction["format"] == "rle"
    assert prediction["masks"]["size"] == [600, 800]
    np.testing.assert_array_equal(coco.decode(prediction["masks"]).astype(bool), expected.pixels)


async def test_a_box_and_points_are_one_prompt(
    sdk_http: httpx.AsyncClient, demo_client: AsyncClient, picture: bytes
) -> None:
    found = await answer(sdk_http, "sam3_visual", picture, format="rle", multimask_output=False)
    [[expected]] = await demo_client.segment(picture, boxes=[BOX], points=[POINTS], labels=[LABELS])
    [prediction] = found["predictions"]
    np.testing.assert_array_equal(coco.decode(prediction["masks"]).astype(bool), expected.pixels)


PROMPT = {"box": {"x": 136, "y": 252, "width": 220, "height": 220}}


@pytest.mark.parametrize(
    ("prompts", "count"), [(PROMPT, 1), ([PROMPT, PROMPT], 2), ({"prompts": [PROMPT]}, 1), ([], 0)]
)
async def test_prompts_in_each_form(
    sdk_http: httpx.AsyncClient, picture: bytes, prompts: Any, count: int
) -> None:
    found = await answer(sdk_http, "sam2_rle", picture, prompts=prompts)
    assert len(found["predictions"]) == count


async def test_an_encoded_image_by_its_id(sdk_http: httpx.AsyncClient, picture: bytes) -> None:
    encoded = await answer(sdk_http, "sam3_embed", picture)
    assert encoded["image_id"] not in ("", "mine")
    with_image = await answer(sdk_http, "sam2_rle", picture)
    by_id = await answer(sdk_http, "sam2_rle", picture, image=None, image_id=encoded["image_id"])
    assert by_id["predictions"] == with_image["predictions"]
    # The id of a caller's own choice is none. With the image, it does not matter.
    status, message = await refusal(sdk_http, "sam2_rle", picture, image=None, image_id="mine")
    assert (status, message.partition(":")[0]) == (404, "image_id")
    assert await answer(sdk_http, "sam2_rle", picture, image_id="mine")


async def test_a_version_that_is_here_answers(sdk_http: httpx.AsyncClient, picture: bytes) -> None:
    """The SDK always sends one: of those that are not here the default variant answers."""
    for version in ("hiera_tiny", "demo"):
        assert await answer(sdk_http, "sam2_rle", picture, sam2_version_id=version)


async def test_concepts(sdk_http: httpx.AsyncClient, demo_client: AsyncClient, picture: bytes) -> None:
    found = await answer(sdk_http, "sam3_concept", picture)
    circle = await demo_client.segment_phrases(picture, ["red circle"], min_score=0.5)
    first, second = found["prompt_results"]
    assert first["echo"] == {"prompt_index": 0, "type": "text", "text": "red circle", "num_boxes": 0}
    assert [first["prompt_index"], second["prompt_index"]] == [0, 1]
    assert len(circle) == len(first["predictions"]) == 1
    assert first["predictions"][0]["confidence"] == pytest.approx(circle[0].score, abs=1e-5)
    detections = supervision.Detections.from_sam3(found, resolution_wh=(800, 600))
    assert len(detections) == len(first["predictions"]) + len(second["predictions"])
    assert circle.masks is not None
    drawn = np.asarray(detections.mask)[0]
    overlap = (drawn & circle.masks[0]).sum() / (drawn | circle.masks[0]).sum()
    assert overlap > 0.98
    exact = await answer(sdk_http, "sam3_concept", picture, format="rle")
    runs = exact["prompt_results"][0]["predictions"][0]
    assert runs["format"] == "rle"
    np.testing.assert_array_equal(coco.decode(runs["masks"]).astype(bool), circle.masks[0])


async def test_thresholds_of_concepts(sdk_http: httpx.AsyncClient, picture: bytes) -> None:
    text = {"type": "text", "text": "red circle"}
    prompts = [text, {**text, "output_prob_thresh": 0.2}]
    found = await answer(sdk_http, "sam3_concept", picture, prompts=prompts, output_prob_thresh=0.9999)
    assert [len(each["predictions"]) for each in found["prompt_results"]] == [0, 1]


TEXT = {"type": "text", "text": "a"}


@pytest.mark.parametrize(
    ("name", "changes", "status", "says"),
    [
        ("sam2_rle", {"prompts": None}, 501, "prompts: none are given"),
        ("sam2_rle", {"prompts": 7}, 400, "prompts: must be a list"),
        ("sam2_rle", {"prompts": [7] * 2049}, 400, "prompts: has 2049 items"),
        ("sam2_rle", {"prompts": [7]}, 400, "prompts[0]: must be an object"),
        ("sam2_rle", {"prompts": [{}]}, 400, "prompts[0]: has neither points nor a box"),
        ("sam2_rle", {"prompts": [{"box": {"x": 1}}]}, 400, "prompts[0].box: must be an object"),
        (
            "sam2_rle",
            {"prompts": [{"box": {"x": "1", "y": 1, "width": 1, "height": 1}}]},
            400,
            "prompts[0].box.x: must be a number",
        ),
        (
            "sam2_rle",
            {"prompts": [{"box": {"x": 800, "y": 20, "width": 10, "height": 10}}]},
            400,
            "prompts[0].box.x_max: is 805, outside the image",
        ),
        ("sam2_rle", {"prompts": [{"points": [{"x": 1, "y": 1}]}]}, 400, "prompts[0].points[0]: must be"),
        ("sam2_rle", {"prompts": [{"points": 3}]}, 400, "prompts[0].points: must be a list"),
        ("sam2_rle", {"format": "binary"}, 501, "format: binary is not served"),
        ("sam2_rle", {"format": "bmp"}, 400, "format: must be one of"),
        ("sam2_rle", {"multimask_output": 1}, 400, "multimask_output: must be true or false"),
        ("sam3_concept", {"nms_iou_threshold": 0.5}, 501, "nms_iou_threshold: is not served"),
        ("sam3_concept", {"prompts": [{**TEXT, "boxes": [[0, 0, 1, 1]]}]}, 501, "prompts[0]: only text"),
        ("sam3_concept", {"prompts": [{"type": "visual", "boxes": []}]}, 501, "prompts[0]: only text"),
        ("sam3_concept", {"prompts": [{"type": "text"}]}, 400, "prompts[0].text: is missing"),
        ("sam3_concept", {"prompts": [TEXT, {**TEXT, "text": ""}]}, 400, "prompts[1].text: is empty"),
        ("sam3_concept", {"prompts": [TEXT] * 17}, 400, "prompts: has 17 items; the limit is 16"),
        ("sam3_concept", {"output_prob_thresh": 2}, 400, "output_prob_thresh: is 2"),
        (
            "sam3_concept",
            {"prompts": [{**TEXT, "output_prob_thresh": 2}]},
            400,
            "prompts[0].output_prob_thresh: is 2",
        ),
    ],
)
async def test_errors_name_the_callers_fields(
    sdk_http: httpx.AsyncClient, picture: bytes, name: str, changes: dict[str, Any], status: int, says: str
) -> None:
    found = await refusal(sdk_http, name, picture, **changes)
    assert (found[0], found[1][: len(says)]) == (status, says)

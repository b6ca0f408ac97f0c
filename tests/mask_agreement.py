"""Masks of a server compared with a reference pipeline's, for every family that answers prompts."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from reference import Sam2Reference, SamReference
from visiongate import AsyncClient, Mask

BOXES = np.array([[20, 30, 300, 350], [100, 5, 580, 390]])
POINTS = np.array([[[150.0, 120.5], [310.0, 33.0]], [[400.0, 200.0], [10.0, 390.0]]])
LABELS = [[1, 0], [1, 1]]


MaskReference = SamReference | Sam2Reference


def assert_same_mask(mask: Mask, pixels: NDArray[np.bool_], predicted_iou: float) -> None:
    """The mask has these pixels and this score, and what is said of it is true."""
    assert mask.pixels.shape == pixels.shape
    # Pixels whose logit is within rounding of zero may fall on either side.
    assert np.mean(mask.pixels != pixels) < 1e-3
    assert mask.predicted_iou == pytest.approx(predicted_iou, abs=1e-4)
    assert mask.area == mask.pixels.sum()
    if mask.area:
        rows, columns = np.nonzero(mask.pixels)
        tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert mask.box.tolist() == tight


async def assert_prompts_agree(
    client: AsyncClient, reference: MaskReference, image: Image.Image, model: str = ""
) -> None:
    """Boxes, points and both, one mask and three: all as the reference has them."""
    scale = np.array(image.size) / (600, 400)
    boxes = (BOXES * np.tile(scale, 2)).astype(np.float32)
    points = (POINTS * scale).tolist()
    prompts: list[dict[str, Any]] = [
        {"boxes": boxes},
        {"points": points, "labels": LABELS},
        {"boxes": boxes, "points": points, "labels": LABELS},
    ]
    for prompt in prompts:
        for multimask in (False, True):
            regions = await client.segment(
                image, **prompt, multimask=multimask, include_logits=True, model=model
            )
            masks, ious, logits = reference.segment(image, **prompt, multimask=multimask)
            for index, answers in enumerate(regions):
                best_first = np.argsort(-ious[index], kind="stable")
                assert len(answers) == len(best_first)
                for mask, k in zip(answers, best_first, strict=True):
                    assert_same_mask(mask, masks[index, k], ious[index, k])
                    assert mask.logits is not None
                    np.testing.assert_allclose(mask.logits, logits[index, k], atol=1e-3)


async def assert_refining_agrees(
    client: AsyncClient, reference: MaskReference, image: Image.Image, model: str = ""
) -> None:
    """An earlier mask changes the next one, as in the reference."""
    ((first,),) = await client.segment(image, points=[[[150, 120]]], include_logits=True, model=model)
    assert first.logits is not None
    ((refined,),) = await client.segment(
        image, points=[[[150, 120]]], mask_logits=[first.logits], model=model
    )
    masks, ious, _ = reference.segment(image, points=[[[150, 120]]], labels=[[1]], mask_logits=first.logits)
    assert_same_mask(refined, masks[0, 0], ious[0, 0])
    assert (refined.pixels != first.pixels).any()

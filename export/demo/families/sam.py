"""Segment Anything in the demo: masks from boxes, from points, and from words."""

import asyncio
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from export.demo.agreement import mask_iou, pairs
from export.demo.family import DemoFamily
from export.demo.measure import Advance, Figure, Measure, ask_all
from export.demo.scenes import Scene
from export.demo.unseen import asked_phrases
from visiongate import AsyncClient


async def segmentation(client: AsyncClient, pictures: Sequence[Scene], advance: Advance) -> list[Figure]:
    """Measure the mean IoU of masks from a box, and from one point in the middle of what is visible."""

    async def ask(index: int) -> tuple[float, float, int]:
        scene = pictures[index]
        truth = [thing.mask for thing in scene.things]
        if not truth:
            return 0.0, 0.0, 0
        from_boxes, from_points = await asyncio.gather(
            client.segment(scene.image, boxes=[thing.box for thing in scene.things]),
            client.segment(scene.image, points=[[middle(mask)] for mask in truth], multimask=True),
        )
        return (
            sum(mask_iou(masks[0].pixels, mask) for masks, mask in zip(from_boxes, truth, strict=True)),
            sum(mask_iou(masks[0].pixels, mask) for masks, mask in zip(from_points, truth, strict=True)),
            len(truth),
        )

    from_boxes, from_points, count = np.sum(await ask_all(ask, len(pictures), advance), axis=0)
    return [
        Figure("SAM: mean IoU from a box", from_boxes / count, 0.85),
        Figure("SAM: mean IoU from one point", from_points / count, 0.75),
    ]


async def words_to_masks(client: AsyncClient, pictures: Sequence[Scene], advance: Advance) -> list[Figure]:
    """Measure the mean IoU over all things that are there; a thing that is not found counts 0."""

    async def ask(index: int) -> tuple[float, int]:
        scene = pictures[index]
        objects = await client.segment_phrases(scene.image, asked_phrases(scene, index))
        total = 0.0
        for phrase in {thing.phrase for thing in scene.things}:
            masks = [item.mask.pixels for item in objects if item.phrase == phrase and item.mask]
            truth = [thing.mask for thing in scene.things if thing.phrase == phrase]
            overlaps = np.array([[mask_iou(mask, true) for mask in masks] for true in truth])
            total += sum(overlaps[pair] for pair in pairs(overlaps))
        return total, len(scene.things)

    total, count = np.sum(await ask_all(ask, len(pictures), advance), axis=0)
    return [Figure("words to masks: mean IoU", total / count, 0.80)]


def middle(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Return (x, y) of the pixel that is farthest from the mask's edge."""
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return float(column) - 0.5, float(row) - 0.5


FAMILY = DemoFamily(
    name="sam",
    place=2,
    training="export.demo.train_sam",
    measures=(Measure(segmentation), Measure(words_to_masks)),
)

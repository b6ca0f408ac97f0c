"""Masks of everything in an image: Segment Anything, prompted with a grid of points."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from gateway.catalog import Variant
from gateway.errors import InvalidArgumentError
from gateway.models import masks, sam_everything
from gateway.models.sam import PromptGroup, SamSpec
from gateway.models.sam_everything import Candidate, Crop, GridOptions
from gateway.pipelines.core import Call, Core, LoadedImage, gather
from gateway.pipelines.segmentation import MaskResult, Segmenter

Written = TypeVar("Written")


@dataclass(frozen=True, slots=True)
class GridMask(Generic[Written]):
    """A mask, how stable it is, and the (x, y) in pixels of the image of the point that led to it."""

    mask: MaskResult[Written]
    stability_score: float
    point: tuple[float, float]


class EverythingSegmenter:
    """A grid of prompts in front of a segmenter, whose embeddings it shares."""

    def __init__(self, core: Core, segmenter: Segmenter) -> None:
        self._core = core
        self._segmenter = segmenter

    async def segment(
        self,
        image: LoadedImage,
        choice: GridOptions,
        model: Variant[SamSpec],
        call: Call,
        *,
        write: Callable[[masks.Mask], Written],
    ) -> list[GridMask[Written]]:
        """All masks that the choice keeps, best predicted IoU first.

        From the filters to the end masks are run lengths; at full size there are no more than worker threads.
        """
        crops = list(sam_everything.crops(image.size, choice))
        points, limit = sum(len(crop.points) for crop in crops), self._core.settings.max_grid_points
        if points > limit:
            raise InvalidArgumentError(
                "points_per_side", f"and crop_layers make {points} points; the limit is {limit}"
            )
        # Crop by crop: of one image, all together would hold as many embeddings as there are crops.
        found = [
            candidate
            for crop in crops
            for candidate in await self._candidates(image, crop, model, choice, call)
        ]
        with call.stage("postprocess"):
            found = await self._core.run(sam_everything.suppress, found, choice.nms_iou_threshold)
            if choice.min_region_area:
                cleaned = await self._core.run_each(
                    lambda candidate: sam_everything.clean(candidate, image.size, choice), found
                )
                found = await self._core.run(
                    sam_everything.suppress_cleaned, cleaned, choice.nms_iou_threshold
                )
            kept = found[: choice.max_masks]
            self._segmenter.check_mask_pixels(len(kept), image, "max_masks")
            return await self._core.run_each(lambda candidate: _finish(candidate, image.size, write), kept)

    async def _candidates(
        self, image: LoadedImage, crop: Crop, model: Variant[SamSpec], choice: GridOptions, call: Call
    ) -> list[Candidate]:
        """What the points of a crop lead to, in their order, filtered."""
        with call.stage("preprocess"):
            groups = await self._core.run(
                model.spec.group_prompts,
                crop.prompts(),
                crop.size,
                max_prompts=self._core.settings.decoder_batch,
            )
        embedding = await self._segmenter.embed(_part(image, crop), model, call)
        # Two groups at a time: one is in the model while the masks of the other are filtered.
        slots = asyncio.Semaphore(2)

        async def ask(group: PromptGroup) -> list[list[Candidate]]:
            async with slots:
                with call.stage("inference"):
                    logits, ious = await self._segmenter.decode(model, embedding, group, multimask=True)

                def choose(row: int) -> list[Candidate]:
                    point = group.indices[row]
                    return sam_everything.candidates(
                        model.spec, logits[row], ious[row], point, crop, image.size, choice
                    )

                with call.stage("postprocess"):
                    return await self._core.run_each(choose, range(len(group.indices)))

        answers = await gather(ask(group) for group in groups)
        return [candidate for group in answers for point in group for candidate in point]


def _part(image: LoadedImage, crop: Crop) -> LoadedImage:
    """The crop as an image of its own, which the cache of embeddings keeps under a name of its own."""
    if crop.size == image.size:
        return image
    left, top, right, bottom = crop.box
    name = f"{image.image_id}/{left},{top},{right},{bottom}"
    return LoadedImage(name, image.pixels[top:bottom, left:right])


def _finish(
    candidate: Candidate, size: tuple[int, int], write: Callable[[masks.Mask], Written]
) -> GridMask[Written]:
    pixels = candidate.pixels(size)
    mask = MaskResult(
        write(pixels), candidate.predicted_iou, masks.bounding_box(pixels), candidate.area, logits=None
    )
    return GridMask(mask, candidate.stability_score, candidate.point)

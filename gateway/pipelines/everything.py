"""Masks of everything in an image: Segment Anything, prompted with a grid of points.

SAM's authors call it automatic mask generation.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace

from gateway.cache import Keep
from gateway.call import stage
from gateway.catalog import Variant
from gateway.concurrency import gather
from gateway.errors import InputError
from gateway.models import sam_everything
from gateway.models.masks import MaskFormat
from gateway.models.sam import PromptGroup, SamSpec
from gateway.models.sam_everything import Candidate, Crop, GridOptions
from gateway.pipelines.answer_bytes import AnswerBytes, ListAnswer, known_bytes, unknown_bytes
from gateway.pipelines.image_lists import Found, work_on_images
from gateway.pipelines.images import ImageSource, LoadedImage
from gateway.pipelines.resources import Resources
from gateway.pipelines.segmentation import ImageView, SegmentedMask, Segmenter, ViewedImage
from gateway.reservations import reserve

FINISHED_AT_A_TIME = 64
"""Masks that are written before their bytes are added up: an answer that is too large ends the work early."""
CANDIDATE_BYTES = 1000
"""Memory that a candidate takes beside its run lengths."""


@dataclass(frozen=True, slots=True)
class GridMask:
    """A mask, how stable it is, and the (x, y) in pixels of the image of the point that led to it."""

    mask: SegmentedMask
    stability_score: float
    point: tuple[float, float]


class TooManyPointsError(InputError):
    """The grids of an image's crops have more points than the settings allow."""


class EverythingSegmenter:
    """A grid of prompts in front of a segmenter, whose views of images it shares."""

    def __init__(self, resources: Resources, segmenter: Segmenter) -> None:
        self._resources = resources
        self._segmenter = segmenter

    async def segment_each(
        self,
        sources: Sequence[ImageSource | InputError],
        options: GridOptions,
        model: Variant[SamSpec],
        *,
        mask_format: MaskFormat,
        strict: bool,
    ) -> list[Found[GridMask] | InputError]:
        """Return all masks of each image, as `segment` says, worked on as `work_on_images` says."""
        whole = self._resources.list_answer()

        async def segment(source: ImageSource, keep: Keep) -> Found[GridMask]:
            image = await self._segmenter.load(source, model, with_pixels=options.crop_layers > 0, keep=keep)
            masks = await self.segment(image, options, model, whole, keep, mask_format=mask_format)
            return Found(image.info, masks)

        return await work_on_images(self._resources, segment, sources, strict=strict)

    async def segment(
        self,
        image: LoadedImage | ViewedImage,
        options: GridOptions,
        model: Variant[SamSpec],
        whole: ListAnswer,
        keep: Keep,
        *,
        mask_format: MaskFormat,
    ) -> list[GridMask]:
        """Return all masks that the options keep, best predicted IoU first.

        Between the filters and the end masks are run lengths. No more masks than there are threads have full
        size at a time. Crop layers need an image with pixels. Raises TooManyPointsError and
        AnswerTooLargeError.
        """
        threads = self._resources.threads
        size = image.info.size
        crops = list(sam_everything.crops(size, options))
        points, limit = sum(len(crop.points) for crop in crops), self._resources.settings.max_grid_points
        if points > limit:
            raise TooManyPointsError(f"and crop_layers make {points} points; the limit is {limit}")
        # One crop after the other: all together would hold as many embeddings as there are crops.
        candidates = [
            candidate
            for crop in crops
            for candidate in await self._candidates(image, crop, model, options, keep)
        ]

        def room() -> AbstractAsyncContextManager[None]:
            return self._resources.mask_room(size)

        answer = AnswerBytes(self._resources.settings.max_response_bytes, whole)
        with stage("postprocess"):
            candidates = await threads.run(sam_everything.suppress, candidates, options.nms_iou_threshold)
            if options.min_region_area:
                cleaned = await threads.run_each(
                    lambda candidate: sam_everything.clean(candidate, size, options),
                    candidates,
                    room,
                )
                candidates = await threads.run(
                    sam_everything.suppress_cleaned, cleaned, options.nms_iou_threshold
                )
            kept = candidates[: options.max_masks]
            self._segmenter.check_mask_pixels(len(kept), image.info)
            whole.add_mask_pixels(len(kept) * size[0] * size[1])
            await answer.add(len(kept) * known_bytes(mask_format, size))
            finished: list[GridMask] = []
            for start in range(0, len(kept), FINISHED_AT_A_TIME):
                finished += await threads.run_each(
                    lambda candidate: _finish(candidate, size, mask_format),
                    kept[start : start + FINISHED_AT_A_TIME],
                    room,
                )
                await answer.add(sum(unknown_bytes(item.mask.encoded) for item in finished[start:]))
            return finished

    async def _candidates(
        self,
        image: LoadedImage | ViewedImage,
        crop: Crop,
        model: Variant[SamSpec],
        options: GridOptions,
        keep: Keep,
    ) -> list[Candidate]:
        """Return what the points of a crop lead to, in their order, filtered."""
        settings, threads = self._resources.settings, self._resources.threads
        with stage("preprocess"):
            groups = await threads.run(_groups, crop, model.spec, settings.decoder_batch)
        view = await self._view(image, crop, model, keep)
        # While one group is in the model, the masks of another are filtered.
        slots = asyncio.Semaphore(settings.batches_in_flight)

        async def segment_group(group: PromptGroup) -> list[list[Candidate]]:
            async with slots:
                logits, ious = await self._segmenter.decode(model, view, group, multimask=True)

                def select(row: int) -> list[Candidate]:
                    point = group.indices[row]
                    return sam_everything.candidates(
                        model.spec, logits[row], ious[row], point, crop, image.info.size, options
                    )

                with stage("postprocess"):
                    return await threads.run_each(
                        select, range(len(group.indices)), lambda: self._resources.mask_room(crop.size)
                    )

        answers = await gather(segment_group(group) for group in groups)
        await reserve(
            sum(
                CANDIDATE_BYTES + len(candidate.rle.counts)
                for group in answers
                for point in group
                for candidate in point
            )
        )
        return [candidate for group in answers for point in group for candidate in point]

    async def _view(
        self, image: LoadedImage | ViewedImage, crop: Crop, model: Variant[SamSpec], keep: Keep
    ) -> ImageView:
        """Return the model's view of a crop. That of the whole image alone is kept, for other methods."""
        if crop.size == image.info.size:
            return await self._segmenter.view(image, model, keep=keep)
        assert isinstance(image, LoadedImage)
        left, top, right, bottom = crop.box
        part = replace(
            image,
            content_hash=f"{image.content_hash}/{left},{top},{right},{bottom}",
            pixels=image.pixels[top:bottom, left:right],
        )
        return await self._segmenter.view(part, model, keep=Keep.NEVER)


def max_points(options: GridOptions) -> int:
    """Return the points of all crops of an image. Tiny images may have fewer."""
    return sum(
        4**layer * max(1, options.points_per_side // options.crop_points_downscale**layer) ** 2
        for layer in range(options.crop_layers + 1)
    )


def _groups(crop: Crop, spec: SamSpec, max_prompts: int) -> list[PromptGroup]:
    return spec.group_prompts(crop.prompts(), crop.size, max_prompts=max_prompts)


def _finish(candidate: Candidate, size: tuple[int, int], mask_format: MaskFormat) -> GridMask:
    mask = SegmentedMask.of(candidate.placed(size), mask_format, candidate.predicted_iou)
    return GridMask(mask, candidate.stability_score, candidate.point)

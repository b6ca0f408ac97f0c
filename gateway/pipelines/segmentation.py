"""Masks of what prompts, and words, point at: Segment Anything 1 and 2, also behind Grounding DINO."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.cache import ComputingCache, Keep
from gateway.call import stage
from gateway.catalog import Family, Role, Variant
from gateway.concurrency import gather
from gateway.errors import (
    AnswerTooLargeError,
    ImageNotCachedError,
    InputError,
    forget_frames,
)
from gateway.models import masks
from gateway.models.grounding_dino import Detection, GroundingDinoSpec
from gateway.models.grounding_dino_text import TokenizedText
from gateway.models.masks import EncodedMask, MaskFormat
from gateway.models.sam import Prompt, PromptGroup, SamSpec
from gateway.pipelines.answer_bytes import AnswerBytes, ListAnswer, known_bytes, unknown_bytes
from gateway.pipelines.detection import Detector, ObjectQuery
from gateway.pipelines.image_lists import Found, work_on_images
from gateway.pipelines.images import CachedImage, ImageInfo, ImageSource, LoadedImage
from gateway.pipelines.resources import Resources
from gateway.reservations import reserve

_PROMPTS = {
    "points": ("FP32", 4),
    "labels": ("INT32", 3),
    "mask_input": ("FP32", 4),
    "has_mask_input": ("BOOL", 2),
}
_MASKS = {
    "mask": ("FP32", 4),
    "mask_iou": ("FP32", 2),
    "multimasks": ("FP32", 5),
    "multimask_iou": ("FP32", 3),
}
_IOUS = ("mask_iou", "multimask_iou")
_SAM2_VIEW = {"image_embedding": ("FP32", 4), "features_s4": ("FP32", 4), "features_s8": ("FP32", 4)}

# Each family is an encoder and a decoder. All outputs of the encoder go to the decoder under the same names.
SAM2 = Family(
    "sam2",
    "segmentation",
    (
        Role("sam2_encoder", inputs={"image": ("UINT8", 4)}, outputs=_SAM2_VIEW),
        Role("sam2_decoder", inputs={**_SAM2_VIEW, **_PROMPTS}, outputs=_MASKS, finite=_IOUS),
    ),
    SamSpec.from_parameters,
)
SAM = Family(
    "sam",
    "segmentation",
    (
        Role(
            "sam_encoder",
            inputs={"image": ("UINT8", 4), "valid_size": ("INT32", 2)},
            outputs={"image_embedding": ("FP32", 4)},
        ),
        Role(
            "sam_decoder",
            inputs={"image_embedding": ("FP32", 4), **_PROMPTS},
            outputs=_MASKS,
            finite=_IOUS,
        ),
    ),
    SamSpec.from_parameters,
    alternatives=(SAM2,),
)


@dataclass(frozen=True, slots=True)
class SegmentedMask:
    """A mask in the format that was asked for, and what is known of it.

    predicted_iou: the model's own estimate. box: (x_min, y_min, x_max, y_max) in pixels, maxima exclusive.
    area: in pixels. logits: float32 [m, m], only if asked for.
    """

    encoded: EncodedMask
    predicted_iou: float
    box: tuple[int, int, int, int]
    area: int
    logits: NDArray[np.float32] | None = None

    @classmethod
    def of(
        cls,
        mask: masks.PlacedMask,
        mask_format: MaskFormat,
        predicted_iou: float,
        logits: NDArray[np.float32] | None = None,
    ) -> "SegmentedMask":
        """Write and measure a mask of the image's size."""
        return cls(
            masks.encode(mask, mask_format),
            predicted_iou,
            masks.part_bounding_box(mask),
            masks.area(mask.pixels),
            logits,
        )


SegmentedObject = tuple[Detection, SegmentedMask]
"""An object that words name, and its mask."""


@dataclass(frozen=True, slots=True)
class ImageView:
    """SAM's view of an image: the encoder's outputs, and the (height, width) before and after resizing."""

    tensors: Mapping[str, NDArray[np.float32]]
    image_size: tuple[int, int]
    valid_size: tuple[int, int]

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())


@dataclass(frozen=True, slots=True)
class ViewedImage:
    """An image of which the view is kept, and the pixels are not: enough for prompts."""

    info: ImageInfo
    view: ImageView


class Segmenter:
    """Segment Anything in front of Triton. One instance a process: it keeps the images' embeddings."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self.detector = Detector(resources)
        self._views = ComputingCache[ImageView](
            "sam_embedding", resources.settings.sam_embedding_cache_bytes, lambda view: view.nbytes
        )

    async def load(
        self,
        source: ImageSource,
        model: Variant[SamSpec],
        *,
        with_pixels: bool = False,
        keep: Keep = Keep.NORMAL,
    ) -> LoadedImage | ViewedImage:
        """Return what segmentation needs of an image: of one that an id names, its view is enough.

        Raises InputError, also for an id if pixels are needed and not kept.
        """
        images = self._resources.images
        if with_pixels or not isinstance(source, CachedImage):
            return await images.load(source, keep=keep)
        try:
            return await images.load(source)
        except ImageNotCachedError as error:
            content_hash = images.content_hash(source)
            view = self._views.get(_view_key(model, content_hash), count_miss=False)
            if view is None:
                raise
            forget_frames(error)
            height, width = view.image_size
            return ViewedImage(ImageInfo(source.image_id, content_hash, width, height), view)

    async def segment(
        self,
        image: LoadedImage | ViewedImage,
        prompts: Sequence[Prompt],
        model: Variant[SamSpec],
        *,
        mask_format: MaskFormat,
        multimask: bool = False,
        with_logits: bool = False,
        keep: Keep = Keep.NORMAL,
        whole: ListAnswer | None = None,
    ) -> list[list[SegmentedMask]]:
        """Return one mask a prompt, or three with `multimask`, the best predicted IoU first.

        `keep` is for the view of the image. `whole` counts the answer that the masks are a part of, if it is
        one to a list. Raises AnswerTooLargeError, and InputError if the prompts cannot be used.
        """
        if not prompts:
            return []
        resources, settings, threads = self._resources, self._resources.settings, self._resources.threads
        size = image.info.size
        count = 3 if multimask else 1
        logits_bytes = count * model.spec.logits_bytes
        self.check_mask_pixels(len(prompts) * count, image.info)
        answer = AnswerBytes(settings.max_response_bytes, whole)
        of_logits = len(prompts) * logits_bytes if with_logits else 0
        await answer.add(of_logits + len(prompts) * count * known_bytes(mask_format, size))
        in_flight = min(len(prompts), settings.batches_in_flight * settings.decoder_batch)
        await reserve(model.spec.view_bytes + in_flight * logits_bytes)
        with stage("preprocess"):
            try:
                groups = await threads.run(
                    model.spec.group_prompts, prompts, size, max_prompts=settings.decoder_batch
                )
            except ValueError as error:
                raise InputError(str(error)) from error
        view = await self.view(image, model, keep=keep)
        results: list[list[SegmentedMask]] = [[] for _ in prompts]
        # While one group is in the model, the masks of another are written. The setting bounds the groups
        # whose low-resolution masks are held.
        slots = asyncio.Semaphore(settings.batches_in_flight)

        async def segment_group(group: PromptGroup) -> None:
            async with slots:
                logits, ious = await self.decode(model, view, group, multimask)

                def finish(row: int) -> list[SegmentedMask]:
                    best_first = np.argsort(-ious[row], kind="stable")
                    return [
                        SegmentedMask.of(
                            model.spec.postprocess_mask(logits[row, k], view.valid_size, size),
                            mask_format,
                            float(ious[row, k]),
                            logits[row, k] if with_logits else None,
                        )
                        for k in best_first
                    ]

                with stage("postprocess"):
                    finished = await threads.run_each(
                        finish, range(len(group.indices)), lambda: resources.mask_room(size)
                    )
                for index, masks_of_prompt in zip(group.indices, finished, strict=True):
                    await answer.add(sum(unknown_bytes(mask.encoded) for mask in masks_of_prompt))
                    results[index] = masks_of_prompt

        await gather(segment_group(group) for group in groups)
        return results

    async def segment_objects_each(
        self,
        sources: Sequence[ImageSource | InputError],
        text: TokenizedText,
        query: ObjectQuery,
        detection_model: Variant[GroundingDinoSpec],
        segmentation_model: Variant[SamSpec],
        *,
        mask_format: MaskFormat,
        strict: bool,
    ) -> list[Found[SegmentedObject] | InputError]:
        """Return the objects of each image that words name, each with its mask.

        The boxes of one model prompt the other. `text` is what `detector.read` makes of the query. Images are
        worked on as `work_on_images` says. AnswerTooLargeError is one of their errors. Raises
        ListTooLargeError.
        """
        whole = self._resources.list_answer()

        async def segment(source: ImageSource, keep: Keep) -> Found[SegmentedObject]:
            image = await self._resources.images.load(source, keep=keep)
            detections = await self.detector.detect(image, text, query, detection_model)
            self.check_mask_pixels(len(detections), image.info)
            whole.add_mask_pixels(len(detections) * image.width * image.height)
            regions = await self.segment(
                image,
                [Prompt(box=detection.box) for detection in detections],
                segmentation_model,
                mask_format=mask_format,
                keep=keep,
                whole=whole,
            )
            return Found(
                image.info,
                [(detection, mask) for detection, (mask,) in zip(detections, regions, strict=True)],
            )

        return await work_on_images(self._resources, segment, sources, strict=strict)

    def check_mask_pixels(self, count: int, image: ImageInfo) -> None:
        """Raise AnswerTooLargeError if so many masks of the image's size have too many pixels."""
        pixels, limit = count * image.width * image.height, self._resources.settings.max_mask_pixels
        if pixels > limit:
            raise AnswerTooLargeError(
                f"would make an answer of {count} masks of {image.width}x{image.height} pixels, {pixels} in "
                f"all; the limit is {limit}"
            )

    async def view(
        self, image: LoadedImage | ViewedImage, model: Variant[SamSpec], *, keep: Keep = Keep.NORMAL
    ) -> ImageView:
        """Return the model's view of an image, from the cache if it is kept there."""
        if isinstance(image, ViewedImage):
            return image.view

        async def compute() -> ImageView:
            resources, spec = self._resources, model.spec
            async with resources.working_room(
                pixels=image.width * image.height, sent=3 * spec.image_size**2, received=spec.view_bytes
            ):
                with stage("preprocess"):
                    canvas, valid_size = await resources.threads.run(spec.preprocess, image.pixels)
                encoder, _ = model.family.roles
                tensors = await resources.infer(
                    model, encoder, {"image": canvas[None], "valid_size": np.array([valid_size], np.int32)}
                )
                tensors = await resources.keep_near_triton(tensors)
            return ImageView(tensors, image.size, valid_size)

        return await self._views.get_or_compute(_view_key(model, image.content_hash), compute, keep=keep)

    async def decode(
        self, model: Variant[SamSpec], view: ImageView, group: PromptGroup, multimask: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return low-resolution logits [P, K, m, m] and predicted IoU [P, K] of a group's prompts.

        K is 3 with `multimask`, else 1.
        """
        _, decoder = model.family.roles
        mask_name, iou_name = ("multimasks", "multimask_iou") if multimask else ("mask", "mask_iou")
        tensors = {
            **view.tensors,
            "points": group.points[None],
            "labels": group.labels[None],
            "mask_input": group.mask_input[None],
            "has_mask_input": group.has_mask_input[None],
        }
        async with self._resources.working_room(
            sent=sum(tensor.nbytes for tensor in tensors.values()),
            received=len(group.indices) * (3 if multimask else 1) * model.spec.logits_bytes,
        ):
            tensors = await self._resources.infer(model, decoder, tensors, (mask_name, iou_name))
        logits, ious = tensors[mask_name][0], tensors[iou_name][0]
        return (logits, ious) if multimask else (logits[:, None], ious[:, None])


def _view_key(model: Variant[SamSpec], content_hash: str) -> str:
    return f"{model.fingerprint}/{content_hash}"

"""Masks of what prompts, and words, point at: Segment Anything, and its chain behind Grounding DINO."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from gateway.cache import ComputingCache
from gateway.catalog import Family, Role, Variant
from gateway.errors import InvalidArgumentError
from gateway.models import masks
from gateway.models.grounding_dino import Detection
from gateway.models.sam import Prompt, PromptGroup, Sam
from gateway.pipelines.core import Call, Core, LoadedImage, gather
from gateway.pipelines.detection import Detector, ObjectQuery

Written = TypeVar("Written")

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
            inputs={
                "image_embedding": ("FP32", 4),
                "points": ("FP32", 4),
                "labels": ("INT32", 3),
                "mask_input": ("FP32", 4),
                "has_mask_input": ("BOOL", 2),
            },
            outputs={
                "mask": ("FP32", 4),
                "mask_iou": ("FP32", 2),
                "multimasks": ("FP32", 5),
                "multimask_iou": ("FP32", 3),
            },
        ),
    ),
    lambda parameters, folder: Sam.from_parameters(parameters),
)


@dataclass(frozen=True, slots=True)
class MaskResult(Generic[Written]):
    """A mask, written as the caller wants it; `logits` float32 [m, m] only where asked for."""

    written: Written
    predicted_iou: float
    box: tuple[int, int, int, int]
    area: int
    logits: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class _Embedding:
    """SAM's view of an image: float32 [1, C, g, g], and the (height, width) it was resized to."""

    tensor: NDArray[np.float32]
    valid_size: tuple[int, int]


class Segmenter:
    """Segment Anything in front of Triton. One instance a process: it keeps the images' embeddings."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._detector = Detector(core)
        self._embeddings = ComputingCache[_Embedding](
            core.settings.embedding_cache_bytes, lambda embedding: embedding.tensor.nbytes
        )

    async def encode(self, image: LoadedImage, variant: str, call: Call) -> None:
        """Makes SAM look at an image, so that prompts on it are cheap for as long as the cache holds it."""
        await self._embedding(image, self._sam(variant), call)

    async def segment(
        self,
        image: LoadedImage,
        prompts: Sequence[Prompt],
        variant: str,
        call: Call,
        *,
        write: Callable[[masks.Mask], Written],
        multimask: bool = False,
        with_logits: bool = False,
    ) -> list[list[MaskResult[Written]]]:
        """One mask a prompt, or three with `multimask`, the best predicted IoU first.

        `write` turns a full-size mask into what is kept of it, in a worker thread.
        """
        model = self._sam(variant)
        size = image.size
        with call.stage("preprocess"):
            try:
                groups = await self._core.run(
                    model.spec.group_prompts, prompts, size, max_prompts=self._core.settings.decoder_batch
                )
            except ValueError as error:
                raise InvalidArgumentError("prompts", str(error)) from error
        embedding = await self._embedding(image, model, call)
        results: list[list[MaskResult[Written]]] = [[] for _ in prompts]
        # Two groups at a time: one is in the model while the masks of the other are written, and the
        # low-resolution masks of no more than two are held.
        slots = asyncio.Semaphore(2)

        async def segment_group(group: PromptGroup) -> None:
            async with slots:
                with call.stage("inference"):
                    logits, ious = await self._decode_masks(model, embedding, group, multimask)

                def finish(row: int) -> list[MaskResult[Written]]:
                    best_first = np.argsort(-ious[row], kind="stable")
                    return [
                        _mask_result(
                            model.spec, logits[row, k], ious[row, k], embedding, size, write, with_logits
                        )
                        for k in best_first
                    ]

                with call.stage("postprocess"):
                    finished = await gather(self._core.run(finish, row) for row in range(len(group.indices)))
                for index, result in zip(group.indices, finished, strict=True):
                    results[index] = result

        await gather(segment_group(group) for group in groups)
        return results

    async def segment_phrases(
        self,
        image: LoadedImage,
        query: ObjectQuery,
        detection_variant: str,
        segmentation_variant: str,
        call: Call,
        *,
        write: Callable[[masks.Mask], Written],
    ) -> list[tuple[Detection, MaskResult[Written]]]:
        """Objects that words name, each with its mask: the boxes of one model prompt the other."""
        # Said before any work: a request that can only fail must cost nothing.
        self._sam(segmentation_variant, "segmentation_model")
        detections = await self._detector.detect(image, query, detection_variant, call, "detection_model")
        if not detections:
            return []
        prompts = [Prompt(box=detection.box) for detection in detections]
        found = await self.segment(image, prompts, segmentation_variant, call, write=write)
        return [(detection, mask) for detection, (mask,) in zip(detections, found, strict=True)]

    def _sam(self, variant: str, field: str = "model") -> Variant[Sam]:
        return self._core.catalog.choose(SAM, variant, Sam, field)

    async def _embedding(self, image: LoadedImage, model: Variant[Sam], call: Call) -> _Embedding:
        async def compute() -> _Embedding:
            with call.stage("preprocess"):
                canvas, valid_size = await self._core.run(model.spec.preprocess, image.pixels)
            with call.stage("inference"):
                tensors = await self._core.triton.infer(
                    model.triton_models["sam_encoder"],
                    {"image": canvas[None], "valid_size": np.array([valid_size], np.int32)},
                    ("image_embedding",),
                )
            return _Embedding(tensors["image_embedding"], valid_size)

        return await self._embeddings.get_or_compute(f"{model.name}/{image.image_id}", compute)

    async def _decode_masks(
        self, model: Variant[Sam], embedding: _Embedding, group: PromptGroup, multimask: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Low-resolution logits [P, K, m, m] and predicted IoU [P, K] of a group's prompts, K masks each."""
        mask_name, iou_name = ("multimasks", "multimask_iou") if multimask else ("mask", "mask_iou")
        tensors = await self._core.triton.infer(
            model.triton_models["sam_decoder"],
            {
                "image_embedding": embedding.tensor,
                "points": group.points[None],
                "labels": group.labels[None],
                "mask_input": group.mask_input[None],
                "has_mask_input": group.has_mask_input[None],
            },
            (mask_name, iou_name),
        )
        logits, ious = tensors[mask_name][0], tensors[iou_name][0]
        return (logits, ious) if multimask else (logits[:, None], ious[:, None])


def _mask_result(
    sam: Sam,
    logits: NDArray[np.float32],
    predicted_iou: np.float32,
    embedding: _Embedding,
    size: tuple[int, int],
    write: Callable[[masks.Mask], Written],
    with_logits: bool,
) -> MaskResult[Written]:
    mask = sam.postprocess_mask(logits, embedding.valid_size, size)
    return MaskResult(
        write(mask),
        float(predicted_iou),
        masks.bounding_box(mask),
        masks.area(mask),
        logits if with_logits else None,
    )

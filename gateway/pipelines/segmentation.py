"""Masks of what prompts, and words, point at: Segment Anything 1 and 2, also behind Grounding DINO."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from gateway.cache import ComputingCache
from gateway.catalog import Family, Role, Variant
from gateway.errors import InvalidArgumentError
from gateway.models import masks
from gateway.models.grounding_dino import Detection, GroundingDinoSpec
from gateway.models.sam import Prompt, PromptGroup, SamSpec
from gateway.pipelines.core import Call, Core, LoadedImage, gather
from gateway.pipelines.detection import Detector, ObjectQuery

Written = TypeVar("Written")

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
_SAM2_VIEW = {"image_embedding": ("FP32", 4), "features_s4": ("FP32", 4), "features_s8": ("FP32", 4)}


# An encoder and a decoder: whatever the encoder puts out goes to the decoder under the same name.
SAM2 = Family(
    "sam2",
    "segmentation",
    (
        Role("sam2_encoder", inputs={"image": ("UINT8", 4)}, outputs=_SAM2_VIEW),
        Role("sam2_decoder", inputs={**_SAM2_VIEW, **_PROMPTS}, outputs=_MASKS),
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
        Role("sam_decoder", inputs={"image_embedding": ("FP32", 4), **_PROMPTS}, outputs=_MASKS),
    ),
    SamSpec.from_parameters,
    alternatives=(SAM2,),
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
class Embedding:
    """SAM's view of an image: the encoder's outputs, and the (height, width) the image was resized to."""

    tensors: Mapping[str, NDArray[np.float32]]
    valid_size: tuple[int, int]

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())


class Segmenter:
    """Segment Anything in front of Triton. One instance a process: it keeps the images' embeddings."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._detector = Detector(core)
        self._embeddings = ComputingCache[Embedding](
            "embedding", core.settings.embedding_cache_bytes, lambda embedding: embedding.nbytes
        )

    async def segment(
        self,
        image: LoadedImage,
        prompts: Sequence[Prompt],
        model: Variant[SamSpec],
        call: Call,
        *,
        write: Callable[[masks.Mask], Written],
        multimask: bool = False,
        with_logits: bool = False,
        field: str = "prompts",
    ) -> list[list[MaskResult[Written]]]:
        """One mask a prompt, or three with `multimask`, the best predicted IoU first.

        `write` turns a full-size mask into what is kept of it, in a worker thread. `field` is the request's
        that says how many masks there are.
        """
        if not prompts:
            return []
        size = image.size
        self.check_mask_pixels(len(prompts) * (3 if multimask else 1), image, field)
        with call.stage("preprocess"):
            try:
                groups = await self._core.run(
                    model.spec.group_prompts, prompts, size, max_prompts=self._core.settings.decoder_batch
                )
            except ValueError as error:
                raise InvalidArgumentError("prompts", str(error)) from error
        embedding = await self.embed(image, model, call)
        results: list[list[MaskResult[Written]]] = [[] for _ in prompts]
        # Two groups at a time: one is in the model while the masks of the other are written, and the
        # low-resolution masks of no more than two are held.
        slots = asyncio.Semaphore(2)

        async def segment_group(group: PromptGroup) -> None:
            async with slots:
                with call.stage("inference"):
                    logits, ious = await self.decode(model, embedding, group, multimask)

                def finish(row: int) -> list[MaskResult[Written]]:
                    best_first = np.argsort(-ious[row], kind="stable")
                    return [
                        _mask_result(
                            model.spec, logits[row, k], ious[row, k], embedding, size, write, with_logits
                        )
                        for k in best_first
                    ]

                with call.stage("postprocess"):
                    finished = await self._core.run_each(finish, range(len(group.indices)))
                for index, result in zip(group.indices, finished, strict=True):
                    results[index] = result

        await gather(segment_group(group) for group in groups)
        return results

    async def segment_phrases(
        self,
        image: LoadedImage,
        query: ObjectQuery,
        detection_model: Variant[GroundingDinoSpec],
        segmentation_model: Variant[SamSpec],
        call: Call,
        *,
        write: Callable[[masks.Mask], Written],
    ) -> list[tuple[Detection, MaskResult[Written]]]:
        """Objects that words name, each with its mask: the boxes of one model prompt the other."""
        detections = await self._detector.detect(image, query, detection_model, call)
        prompts = [Prompt(box=detection.box) for detection in detections]
        found = await self.segment(
            image, prompts, segmentation_model, call, write=write, field="query.max_detections"
        )
        return [(detection, mask) for detection, (mask,) in zip(detections, found, strict=True)]

    def choose(self, variant: str, field: str = "model") -> Variant[SamSpec]:
        """The variant of that name, or the default one for an empty name."""
        return self._core.catalog.choose(SAM, variant, SamSpec, field)

    def choose_detector(self, variant: str, field: str) -> Variant[GroundingDinoSpec]:
        """The variant that finds what words name, as `choose`."""
        return self._detector.choose(variant, field)

    def check_mask_pixels(self, count: int, image: LoadedImage, field: str) -> None:
        """Refuses an answer of so many masks of the image's size, where that is too many pixels."""
        pixels, limit = count * image.width * image.height, self._core.settings.max_mask_pixels
        if pixels > limit:
            raise InvalidArgumentError(
                field,
                f"would make an answer of {count} masks of {image.width}x{image.height} pixels, {pixels} in "
                f"all; the limit is {limit}",
            )

    async def embed(self, image: LoadedImage, model: Variant[SamSpec], call: Call) -> Embedding:
        """The model's view of an image, from the cache where it is kept."""

        async def compute() -> Embedding:
            with call.stage("preprocess"):
                canvas, valid_size = await self._core.run(model.spec.preprocess, image.pixels)
            encoder, _ = model.family.roles
            inputs: dict[str, NDArray[Any]] = {
                "image": canvas[None],
                "valid_size": np.array([valid_size], np.int32),
            }
            with call.stage("inference"):
                tensors = await self._core.triton.infer(
                    model.triton_models[encoder.name],
                    {name: inputs[name] for name in encoder.inputs},
                    tuple(encoder.outputs),
                )
            return Embedding(tensors, valid_size)

        return await self._embeddings.get_or_compute(f"{model.name}/{image.image_id}", compute)

    async def decode(
        self, model: Variant[SamSpec], embedding: Embedding, group: PromptGroup, multimask: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Low-resolution logits [P, K, m, m] and predicted IoU [P, K] of a group's prompts, K masks each."""
        _, decoder = model.family.roles
        mask_name, iou_name = ("multimasks", "multimask_iou") if multimask else ("mask", "mask_iou")
        tensors = await self._core.triton.infer(
            model.triton_models[decoder.name],
            {
                **embedding.tensors,
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
    sam: SamSpec,
    logits: NDArray[np.float32],
    predicted_iou: np.float32,
    embedding: Embedding,
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

"""The tasks, and the chains of tasks: pure functions in worker threads between calls to Triton.

Cancelling a call is how deadlines and callers that hang up reach everything below: the awaited Triton
request is cancelled with it, and no later stage starts.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from gateway.cache import ComputingCache
from gateway.catalog import GROUNDING_DINO, SAM, Catalog, Variant
from gateway.errors import ImageNotCachedError, InvalidArgumentError
from gateway.models import image as images
from gateway.models import masks
from gateway.models.grounding_dino import Detection, GroundingDino, Text
from gateway.models.sam import Prompt, PromptGroup, Sam
from gateway.settings import Settings
from gateway.triton import Triton

Pixels = NDArray[np.uint8]
Result = TypeVar("Result")
Written = TypeVar("Written")
Stage = Literal["decode", "preprocess", "inference", "postprocess"]


@dataclass(slots=True)
class Call:
    """What a call measures of itself: seconds by stage. Work shared with other calls counts for one."""

    seconds: dict[Stage, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - start


STAGES: tuple[Stage, ...] = ("decode", "preprocess", "inference", "postprocess")


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image file."""

    data: bytes


@dataclass(frozen=True, slots=True)
class RawImage:
    """RGB bytes, row by row."""

    data: bytes
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class CachedImage:
    """An image that an earlier call brought."""

    image_id: str


ImageSource = EncodedImage | RawImage | CachedImage


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """RGB uint8 [H, W, 3] in the orientation in which it is meant to be seen, and its content hash."""

    image_id: str
    pixels: Pixels

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])


@dataclass(frozen=True, slots=True)
class ObjectQuery:
    """What to detect: phrases, or else a caption."""

    phrases: tuple[str, ...]
    caption: str
    box_threshold: float
    text_threshold: float
    nms_iou_threshold: float | None
    max_detections: int


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


class Pipelines:
    """Every task of the gateway. One instance a process, used from one event loop."""

    def __init__(self, triton: Triton, catalog: Catalog, settings: Settings) -> None:
        self.triton = triton
        self.catalog = catalog
        self._settings = settings
        self._workers = ThreadPoolExecutor(settings.worker_threads, thread_name_prefix="worker")
        self._images = ComputingCache[LoadedImage](
            settings.image_cache_bytes, lambda image: image.pixels.nbytes
        )
        self._embeddings = ComputingCache[_Embedding](
            settings.embedding_cache_bytes, lambda embedding: embedding.tensor.nbytes
        )

    def close(self) -> None:
        self._workers.shutdown(wait=False, cancel_futures=True)

    async def load_image(self, source: ImageSource, call: Call) -> LoadedImage:
        """Decodes an image, or finds it in the cache."""
        with call.stage("decode"):
            if isinstance(source, CachedImage):
                image = self._images.get(source.image_id)
                if image is None:
                    raise ImageNotCachedError(source.image_id)
                return image
            image_id = await self._run(_content_hash, source)
            return await self._images.get_or_compute(
                image_id, lambda: self._run(_decode, source, image_id, self._settings.max_image_pixels)
            )

    async def detect(
        self, image: LoadedImage, query: ObjectQuery, variant: str, call: Call, field: str = "model"
    ) -> list[Detection]:
        """Objects that words name, best first."""
        model = self.catalog.choose(GROUNDING_DINO, variant, GroundingDino, field)
        dino = model.spec
        with call.stage("preprocess"):
            text = await self._run(_encode_text, dino, query)
            canvas, valid_size = await self._run(dino.preprocess, image.pixels)
        with call.stage("inference"):
            tensors = await self.triton.infer(
                model.triton_models["grounding_dino"],
                {
                    "image": canvas[None],
                    "valid_size": np.array([valid_size], np.int32),
                    "input_ids": text.input_ids[None],
                    "attention_mask": text.attention_mask[None],
                    "position_ids": text.position_ids[None],
                    "text_self_attention_mask": text.text_self_attention_mask[None],
                },
                ("logits", "boxes"),
            )
        with call.stage("postprocess"):
            return await self._run(
                dino.postprocess,
                tensors["logits"][0],
                tensors["boxes"][0],
                text,
                (image.height, image.width),
                box_threshold=query.box_threshold,
                text_threshold=query.text_threshold,
                nms_iou_threshold=query.nms_iou_threshold,
                max_detections=query.max_detections,
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
        size = (image.height, image.width)
        with call.stage("preprocess"):
            try:
                groups = await self._run(
                    model.spec.group_prompts, prompts, size, max_prompts=self._settings.decoder_batch
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
                    finished = await _gather(self._run(finish, row) for row in range(len(group.indices)))
                for index, result in zip(group.indices, finished, strict=True):
                    results[index] = result

        await _gather(segment_group(group) for group in groups)
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
        detections = await self.detect(image, query, detection_variant, call, "detection_model")
        if not detections:
            return []
        prompts = [Prompt(box=detection.box) for detection in detections]
        found = await self.segment(image, prompts, segmentation_variant, call, write=write)
        return [(detection, mask) for detection, (mask,) in zip(detections, found, strict=True)]

    def _sam(self, variant: str, field: str = "model") -> Variant[Sam]:
        return self.catalog.choose(SAM, variant, Sam, field)

    async def _embedding(self, image: LoadedImage, model: Variant[Sam], call: Call) -> _Embedding:
        async def compute() -> _Embedding:
            with call.stage("preprocess"):
                canvas, valid_size = await self._run(model.spec.preprocess, image.pixels)
            with call.stage("inference"):
                tensors = await self.triton.infer(
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
        tensors = await self.triton.infer(
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

    async def _run(self, function: Callable[..., Result], *arguments: Any, **keywords: Any) -> Result:
        """Runs CPU work in a worker thread; work that has not started is dropped with its caller."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._workers, lambda: function(*arguments, **keywords))


async def _gather(work: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Results in order; the first failure cancels the rest and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(item) for item in work]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


def _content_hash(source: EncodedImage | RawImage) -> str:
    digest = hashlib.sha256(source.data)
    if isinstance(source, RawImage):
        # The same bytes are another image at another width, and as a file.
        digest.update(f"rgb {source.width}x{source.height}".encode())
    return digest.hexdigest()


def _decode(source: EncodedImage | RawImage, image_id: str, max_pixels: int) -> LoadedImage:
    try:
        if isinstance(source, RawImage):
            field = "image.raw"
            pixels = images.from_raw(source.data, source.width, source.height, max_pixels=max_pixels)
        else:
            field = "image.encoded"
            pixels = images.decode(source.data, max_pixels=max_pixels)
    except images.ImageError as error:
        raise InvalidArgumentError(field, str(error)) from error
    return LoadedImage(image_id, pixels)


def _encode_text(dino: GroundingDino, query: ObjectQuery) -> Text:
    field = "query.phrases" if query.phrases else "query.caption"
    try:
        return dino.encode_phrases(query.phrases) if query.phrases else dino.encode_caption(query.caption)
    except ValueError as error:
        raise InvalidArgumentError(field, str(error)) from error


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

"""Objects that words name: Grounding DINO."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from gateway.cache import Keep
from gateway.call import stage
from gateway.catalog import Family, Role, Variant
from gateway.errors import InputError
from gateway.models.grounding_dino import Detection, GroundingDinoSpec
from gateway.models.grounding_dino_text import TextTokenizer, TokenizedText
from gateway.pipelines.image_lists import Found, work_on_images
from gateway.pipelines.images import ImageSource, LoadedImage
from gateway.pipelines.resources import Resources
from gateway.reservations import reserve

_DETECTOR = Role(
    "grounding_dino",
    inputs={
        "image": ("UINT8", 4),
        "valid_size": ("INT32", 2),
        "input_ids": ("INT64", 2),
        "attention_mask": ("INT64", 2),
        "position_ids": ("INT64", 2),
        "text_self_attention_mask": ("BOOL", 3),
    },
    outputs={"logits": ("FP32", 3), "boxes": ("FP32", 3)},
)
GROUNDING_DINO = Family("grounding_dino", "detection", (_DETECTOR,), GroundingDinoSpec.from_parameters)


TEXTS_KEPT = 64
"""Tokenized words that are kept, the latest used."""


@dataclass(frozen=True, slots=True)
class ObjectQuery:
    """What to detect: phrases, or else a caption. A threshold of None is the model's own.

    min_score and min_token_score are Grounding DINO's box_threshold and text_threshold.
    """

    phrases: tuple[str, ...]
    caption: str
    min_score: float | None
    min_token_score: float | None
    nms_iou_threshold: float | None
    max_detections: int


class Detector:
    """Grounding DINO in front of Triton."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        # Callers ask the same words again and again. Each entry is at most 85 KB, by far the most its mask.
        self._texts: LRUCache[Hashable, TokenizedText] = LRUCache(TEXTS_KEPT)

    async def read(self, query: ObjectQuery, model: Variant[GroundingDinoSpec]) -> TokenizedText:
        """Return the words of a query for `detect`. Raises InputError if they cannot be used.

        This needs no image: words that cannot be used cost no decoding.
        """
        key = model.fingerprint, query.phrases, query.caption
        text = self._texts.get(key)
        if text is None:
            with stage("preprocess"):
                text = await self._resources.threads.run(_encode_text, model.spec.text, query)
            self._texts[key] = text
        return text

    async def detect_each(
        self,
        sources: Sequence[ImageSource | InputError],
        text: TokenizedText,
        query: ObjectQuery,
        model: Variant[GroundingDinoSpec],
        *,
        strict: bool,
    ) -> list[Found[Detection] | InputError]:
        """Return the objects of each image that words name, best first, as `work_on_images` says."""
        images = self._resources.images

        async def detect(source: ImageSource, keep: Keep) -> Found[Detection]:
            image = await images.load(source, keep=keep)
            info = image.info
            canvas = await self._canvas(image, model)
            images.release(image)
            del image
            return Found(info, await self._find(canvas, info.size, text, query, model))

        return await work_on_images(self._resources, detect, sources, strict=strict)

    async def detect(
        self, image: LoadedImage, text: TokenizedText, query: ObjectQuery, model: Variant[GroundingDinoSpec]
    ) -> list[Detection]:
        """Return the objects that words name, best first."""
        return await self._find(await self._canvas(image, model), image.size, text, query, model)

    async def _canvas(
        self, image: LoadedImage, model: Variant[GroundingDinoSpec]
    ) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        """Return the model's canvas, and the (height, width) of it that the image covers."""
        await reserve(model.spec.canvas_bytes)
        async with self._resources.working_room(pixels=image.width * image.height):
            with stage("preprocess"):
                return await self._resources.threads.run(model.spec.preprocess, image.pixels)

    async def _find(
        self,
        prepared: tuple[NDArray[np.uint8], tuple[int, int]],
        size: tuple[int, int],
        text: TokenizedText,
        query: ObjectQuery,
        model: Variant[GroundingDinoSpec],
    ) -> list[Detection]:
        """Return what is on a canvas. `size` is the (height, width) of its image."""
        canvas, valid_size = prepared
        async with self._resources.working_room(sent=canvas.nbytes):
            tensors = await self._resources.infer(
                model,
                _DETECTOR,
                {
                    "image": canvas[None],
                    "valid_size": np.array([valid_size], np.int32),
                    "input_ids": text.input_ids[None],
                    "attention_mask": text.attention_mask[None],
                    "position_ids": text.position_ids[None],
                    "text_self_attention_mask": text.text_self_attention_mask[None],
                },
            )
        with stage("postprocess"):
            return await self._resources.threads.run(
                model.spec.postprocess,
                tensors["logits"][0],
                tensors["boxes"][0],
                text,
                size,
                box_threshold=query.min_score,
                text_threshold=query.min_token_score,
                nms_iou_threshold=query.nms_iou_threshold,
                max_detections=query.max_detections,
            )


def _encode_text(tokenizer: TextTokenizer, query: ObjectQuery) -> TokenizedText:
    try:
        return (
            tokenizer.encode_phrases(query.phrases)
            if query.phrases
            else tokenizer.encode_caption(query.caption)
        )
    except ValueError as error:
        raise InputError(str(error)) from error

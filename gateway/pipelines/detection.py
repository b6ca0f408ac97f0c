"""Objects that words name: Grounding DINO."""

from dataclasses import dataclass

import numpy as np

from gateway.call import stage
from gateway.catalog import Family, Role, Variant
from gateway.errors import InputError
from gateway.models.grounding_dino import Detection, GroundingDinoSpec
from gateway.models.grounding_dino_text import TextTokenizer, TokenizedText
from gateway.pipelines.images import LoadedImage
from gateway.pipelines.resources import Resources

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

    async def read(self, query: ObjectQuery, model: Variant[GroundingDinoSpec]) -> TokenizedText:
        """Return the words of a query for `detect`. Raises InputError if they cannot be used.

        This needs no image: words that cannot be used cost no decoding.
        """
        with stage("preprocess"):
            return await self._resources.threads.run(_encode_text, model.spec.text, query)

    async def detect(
        self, image: LoadedImage, text: TokenizedText, query: ObjectQuery, model: Variant[GroundingDinoSpec]
    ) -> list[Detection]:
        """Return the objects that words name, best first."""
        spec, threads = model.spec, self._resources.threads
        async with self._resources.working_room(pixels=image.width * image.height, sent=spec.canvas_bytes):
            with stage("preprocess"):
                canvas, valid_size = await threads.run(spec.preprocess, image.pixels)
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
            return await threads.run(
                spec.postprocess,
                tensors["logits"][0],
                tensors["boxes"][0],
                text,
                image.size,
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

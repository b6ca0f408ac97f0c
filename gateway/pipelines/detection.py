"""Objects that words name: Grounding DINO."""

from dataclasses import dataclass

import numpy as np

from gateway.catalog import Family, Role, Variant
from gateway.errors import InvalidArgumentError
from gateway.models.grounding_dino import Detection, GroundingDinoSpec
from gateway.models.grounding_dino_text import TextTokenizer, TokenizedText
from gateway.pipelines.core import Call, Core, LoadedImage

GROUNDING_DINO = Family(
    "grounding_dino",
    "detection",
    (
        Role(
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
        ),
    ),
    GroundingDinoSpec.from_parameters,
)


@dataclass(frozen=True, slots=True)
class ObjectQuery:
    """What to detect: phrases, or else a caption. A threshold of None is the model's own."""

    phrases: tuple[str, ...]
    caption: str
    box_threshold: float | None
    text_threshold: float | None
    nms_iou_threshold: float | None
    max_detections: int


class Detector:
    """Grounding DINO in front of Triton."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def choose(self, variant: str, field: str = "model") -> Variant[GroundingDinoSpec]:
        """The variant of that name, or the default one for an empty name."""
        return self._core.catalog.choose(GROUNDING_DINO, variant, GroundingDinoSpec, field)

    async def detect(
        self, image: LoadedImage, query: ObjectQuery, model: Variant[GroundingDinoSpec], call: Call
    ) -> list[Detection]:
        """Objects that words name, best first."""
        dino = model.spec
        with call.stage("preprocess"):
            text = await self._core.run(_encode_text, dino.text, query)
            canvas, valid_size = await self._core.run(dino.preprocess, image.pixels)
        with call.stage("inference"):
            tensors = await self._core.triton.infer(
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
            return await self._core.run(
                dino.postprocess,
                tensors["logits"][0],
                tensors["boxes"][0],
                text,
                image.size,
                box_threshold=query.box_threshold,
                text_threshold=query.text_threshold,
                nms_iou_threshold=query.nms_iou_threshold,
                max_detections=query.max_detections,
            )


def _encode_text(text: TextTokenizer, query: ObjectQuery) -> TokenizedText:
    field = "query.phrases" if query.phrases else "query.caption"
    try:
        return text.encode_phrases(query.phrases) if query.phrases else text.encode_caption(query.caption)
    except ValueError as error:
        raise InvalidArgumentError(field, str(error)) from error

"""The reference pipeline: transformers' own processors and models, chained in PyTorch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import (
    BertTokenizer,
    GroundingDinoImageProcessorPil,
    GroundingDinoProcessor,
    MaskGenerationPipeline,
    Sam2ImageProcessor,
    Sam2Processor,
    SamImageProcessorPil,
    SamProcessor,
)

from export import grounding_dino, sam, sam2
from export.weights import Options
from gateway.models.grounding_dino import GroundingDinoSpec


@dataclass(frozen=True)
class Detections:
    """Detections sorted by score: boxes float32 [n, 4] xyxy in pixels, scores [n], phrase indices [n]."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    phrases: NDArray[np.int64]


class SamReference:
    """SAM with the weights that `visiongate export` writes for the same options."""

    def __init__(self, options: Options) -> None:
        self.segmenter, _ = sam.build(options)
        size, mask_size = (
            self.segmenter.config.vision_config.image_size,
            4 * self.segmenter.prompt_encoder.image_embedding_size[0],
        )
        self._sam_processor = SamProcessor(
            SamImageProcessorPil(
                size={"longest_edge": size},
                pad_size={"height": size, "width": size},
                mask_size={"longest_edge": mask_size},
                mask_pad_size={"height": mask_size, "width": mask_size},
            )
        )

    @torch.no_grad()
    def segment(
        self,
        image: Image.Image,
        *,
        boxes: NDArray[np.float32] | None = None,
        points: Sequence[Any] | None = None,
        labels: Sequence[Any] | None = None,
        mask_logits: NDArray[np.float32] | None = None,
        multimask: bool = False,
    ) -> tuple[NDArray[np.bool_], NDArray[np.float32], NDArray[np.float32]]:
        """Masks bool [P, K, H, W], predicted IoU [P, K] and logits [P, K, m, m] of P prompts."""
        inputs = self._sam_processor(
            image,
            input_boxes=None if boxes is None else [boxes.tolist()],
            input_points=None if points is None else [points],
            input_labels=None if labels is None else [labels],
            return_tensors="pt",
        )
        sizes = inputs.pop("original_sizes"), inputs.pop("reshaped_input_sizes")
        inputs = {
            name: value.float() if value.is_floating_point() else value for name, value in inputs.items()
        }
        if mask_logits is not None:
            inputs["input_masks"] = torch.tensor(mask_logits)[None, None]
        outputs = self.segmenter(**inputs, multimask_output=multimask)
        (masks,) = self._sam_processor.image_processor.post_process_masks(outputs.pred_masks, *sizes)
        return masks.numpy(), outputs.iou_scores[0].numpy(), outputs.pred_masks[0].numpy()

    def everything(
        self, image: Image.Image, **keywords: Any
    ) -> tuple[NDArray[np.bool_], NDArray[np.float32], NDArray[np.float32]]:
        """transformers' own pipeline: masks bool [n, H, W], predicted IoU [n], boxes [n, 4] max inclusive."""
        generate = MaskGenerationPipeline(
            model=self.segmenter, image_processor=self._sam_processor.image_processor
        )
        found = generate(image, output_bboxes_mask=True, points_per_batch=32, **keywords)
        masks = np.stack(found["masks"]) if found["masks"] else np.zeros((0, image.height, image.width), bool)
        return masks, found["scores"].numpy(), found["bounding_boxes"].numpy()


class Reference(SamReference):
    """Grounding DINO and SAM with the weights that `visiongate export` writes for the same options."""

    def __init__(self, options: Options, tokenizer_file: Path, dino: GroundingDinoSpec) -> None:
        """`dino` tells the canvas of an image: padding changes results, so the reference pads alike."""
        super().__init__(options)
        self._dino = dino
        self.detector, _, _ = grounding_dino.build(options)
        self._tokenizer = BertTokenizer(tokenizer_file=str(tokenizer_file))

    def _dino_processor(self, image: Image.Image) -> GroundingDinoProcessor:
        canvas, _ = self._dino.preprocess(np.asarray(image))
        return GroundingDinoProcessor(
            GroundingDinoImageProcessorPil(
                size={"shortest_edge": self._dino.shortest_edge, "longest_edge": self._dino.longest_edge},
                pad_size={"height": canvas.shape[0], "width": canvas.shape[1]},
            ),
            self._tokenizer,
        )

    @torch.no_grad()
    def detect(self, image: Image.Image, phrases: Sequence[str], threshold: float) -> Detections:
        """Scores of a query: its best token's, among the tokens of each phrase.

        The tokens of phrase i are counted: [CLS], then each phrase's own tokens and its full stop.
        """
        inputs = self._dino_processor(image)(images=image, text=[list(phrases)], return_tensors="pt")
        outputs = self.detector(**inputs)
        probabilities = outputs.logits[0].sigmoid()
        columns, start = [], 1
        for phrase in phrases:
            end = start + len(self._tokenizer(phrase.lower(), add_special_tokens=False).input_ids)
            columns.append(probabilities[:, start:end].amax(1))
            start = end + 1
        scores, best = torch.stack(columns, 1).max(1)
        center, extent = outputs.pred_boxes[0].split(2, -1)
        corners = torch.cat([center - extent / 2, center + extent / 2], -1)
        limit = torch.tensor([image.width, image.height] * 2)
        boxes = torch.minimum((corners * limit).clamp(min=0), limit)
        order = torch.argsort(scores, descending=True)
        order = order[scores[order] > threshold]
        return Detections(boxes[order].numpy(), scores[order].numpy(), best[order].numpy())

    @torch.no_grad()
    def detect_caption(self, image: Image.Image, caption: str, threshold: float) -> dict[str, Any]:
        """transformers' own post-processing of a caption: `boxes`, `scores`, `text_labels`."""
        processor = self._dino_processor(image)
        inputs = processor(images=image, text=caption, return_tensors="pt")
        outputs = self.detector(**inputs)
        (result,) = processor.post_process_grounded_object_detection(
            outputs,
            inputs.input_ids,
            threshold=threshold,
            text_threshold=0.25,
            target_sizes=[(image.height, image.width)],
        )
        return dict(result)


class Sam2Reference:
    """SAM 2.1 with the weights that `visiongate export` writes for the same options.

    Images are resized by Pillow, as the gateway does it, and go to the processor at the model's size: the
    processor's own resize, torchvision's, is up to a grey level away.
    """

    def __init__(self, options: Options) -> None:
        self.segmenter, _ = sam2.build(options)
        self.size: int = self.segmenter.prompt_encoder.input_image_size
        self._processor = Sam2Processor(Sam2ImageProcessor(size={"height": self.size, "width": self.size}))

    @torch.no_grad()
    def segment(
        self,
        image: Image.Image,
        *,
        boxes: NDArray[np.float32] | None = None,
        points: Sequence[Any] | None = None,
        labels: Sequence[Any] | None = None,
        mask_logits: NDArray[np.float32] | None = None,
        multimask: bool = False,
    ) -> tuple[NDArray[np.bool_], NDArray[np.float32], NDArray[np.float32]]:
        """Masks bool [P, K, H, W], predicted IoU [P, K] and logits [P, K, m, m] of P prompts."""
        resized = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        pixels = self._processor.image_processor(resized, return_tensors="pt").pixel_values
        inputs = self._processor(
            original_sizes=[[image.height, image.width]],
            input_boxes=None if boxes is None else [boxes.tolist()],
            input_points=None if points is None else [points],
            input_labels=None if labels is None else [labels],
            return_tensors="pt",
        )
        sizes = inputs.pop("original_sizes")
        if mask_logits is not None:
            inputs["input_masks"] = torch.tensor(mask_logits)[None, None]
        outputs = self.segmenter(pixel_values=pixels, **inputs, multimask_output=multimask)
        (masks,) = self._processor.post_process_masks(outputs.pred_masks, sizes)
        return masks.numpy(), outputs.iou_scores[0].numpy(), outputs.pred_masks[0].numpy()

"""Teaches the demo Grounding DINO to find what "red circle" names.

Training starts from nothing, and in hours the published loss (each object matched to one query) teaches too
little. Here every place of the image that lies well inside an object learns to propose it, for the tokens of
its phrases. Every query whose proposal overlaps an object learns to refine it. So several queries find one
object, and callers need non-maximum suppression.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export import bert_tokenizer
from export.demo.agreement import right_boxes
from export.demo.command import main
from export.demo.grounding_dino_examples import Example, draw, mirrored, phrases_for
from export.demo.grounding_dino_losses import dense_loss, query_loss, targets_for
from export.demo.training import Recipe, save_halves, train_family
from export.demo.unseen import asked_phrases, unseen
from export.families.grounding_dino import DEMO_SIZES, DEMO_THRESHOLDS, VARIANTS
from export.grounding_dino import text_inputs
from export.pixels import normalised
from gateway.models.grounding_dino import Detection, GroundingDinoSpec
from gateway.models.grounding_dino_text import TextTokenizer

RECIPE = Recipe(steps=6500, learning_rate=1e-3, warmup=300, bfloat16=True, weight_decay=0.02)
BATCH = 16
SIZES = ((160, 160), (160, 120), (120, 160))
"""(width, height) of the scenes in pixels: each fits a canvas of the model."""
SCENES = 3000
"""How many scenes of each size are drawn. They are mirrored and asked about anew each time."""
MAX_TOKENS = 256


class Learner:
    """Grounding DINO on scenes of shapes and faces."""

    def __init__(self, device: torch.device) -> None:
        from transformers import GroundingDinoForObjectDetection

        self.device = device
        self.tokenizer = bert_tokenizer.from_vocabulary(bert_tokenizer.own_vocabulary())
        self.network: Any = GroundingDinoForObjectDetection(VARIANTS["demo"].config())
        for name, parameter in self.network.named_parameters():
            # Layer scales of 1e-4 are for pretrained towers: image and text would not meet for hours.
            if name.endswith(("vision_param", "text_param")):
                nn.init.constant_(parameter, 0.1)
        self._drawn: dict[int, Example] = {}

    def loss(self, random: np.random.Generator, progress: float) -> dict[str, Tensor]:
        """Return the dense loss of the proposals and the one-to-many loss of the queries."""
        width, height = SIZES[random.integers(len(SIZES))]
        batch = [
            mirrored(self._example(int(random.integers(SCENES)), width, height), bool(random.integers(2)))
            for _ in range(BATCH)
        ]
        captions = [phrases_for(example.names, random) for example in batch]
        inputs = self._inputs([example.image for example in batch], captions)
        targets = targets_for(batch, captions, inputs, self.tokenizer)
        output = self.network(**inputs)
        valid = torch.tensor([width, height], device=self.device) / torch.tensor(
            inputs["pixel_values"].shape[:1:-1], device=self.device
        )
        return dense_loss(output, targets, inputs, valid) | query_loss(self.network, output, targets, inputs)

    def report(self) -> str:
        """Return recall and precision at IoU 0.5 over 30 scenes. Most phrases are of absent things."""
        right = wanted = found = 0
        for index, scene in enumerate(unseen(30)):
            objects = self.detect(scene.image, asked_phrases(scene, index))
            right += right_boxes(scene, [(item.phrase, item.box) for item in objects])
            wanted += len(scene.things)
            found += len(objects)
        return f"recall {right / wanted:.3f}, precision {right / max(1, found):.3f}"

    @torch.no_grad()
    def detect(self, image: NDArray[np.uint8], phrases: Sequence[str]) -> list[Detection]:
        """Return what the phrases find in an image of any size, as the gateway answers by default."""
        processor = GroundingDinoSpec(
            shortest_edge=int(DEMO_SIZES["shortest_edge"]),
            longest_edge=int(DEMO_SIZES["longest_edge"]),
            canvases=tuple((-(-height // 32) * 32, -(-width // 32) * 32) for width, height in SIZES),
            text=TextTokenizer(self.tokenizer, (MAX_TOKENS,)),
            box_threshold=float(DEMO_THRESHOLDS["box_threshold"]),
            nms_iou_threshold=float(DEMO_THRESHOLDS["nms_iou_threshold"]),
        )
        canvas, valid_size = processor.preprocess(image)
        text = processor.text.encode_phrases(phrases)
        pixels, mask = normalised(canvas[None], np.array([valid_size]))
        length = int(text.attention_mask.sum())
        output = self.network(
            pixel_values=pixels.to(self.device),
            pixel_mask=mask.to(self.device),
            input_ids=torch.from_numpy(text.input_ids[None, :length]).to(self.device),
            attention_mask=torch.ones(1, length, dtype=torch.int64, device=self.device),
        )
        logits = np.full((output.logits.shape[1], len(text.input_ids)), -np.inf, np.float32)
        logits[:, :length] = output.logits[0, :, :length].cpu().numpy()
        return processor.postprocess(
            logits,
            output.pred_boxes[0].cpu().numpy(),
            text,
            (image.shape[0], image.shape[1]),
            max_detections=100,
        )

    def save(self, folder: Path) -> None:
        """Write config.json and model.safetensors, as transformers reads them."""
        self.network.config.save_pretrained(folder)
        # Tied weights are written once. The others are made from them again.
        seen: set[int] = set()
        state = {}
        for name, value in self.network.state_dict().items():
            if value.data_ptr() not in seen:
                seen.add(value.data_ptr())
                state[name] = value
        save_halves(state, folder / "model.safetensors")

    def _example(self, seed: int, width: int, height: int) -> Example:
        key = seed * len(SIZES) + SIZES.index((width, height))
        if key not in self._drawn:
            self._drawn[key] = draw(key, width, height)
        return self._drawn[key]

    def _inputs(
        self, images: Sequence[NDArray[np.uint8]], captions: Sequence[Sequence[str]]
    ) -> dict[str, Tensor]:
        height, width = images[0].shape[:2]
        canvas = np.zeros((len(images), -(-height // 32) * 32, -(-width // 32) * 32, 3), np.uint8)
        canvas[:, :height, :width] = np.stack(images)
        sizes = np.array([[height, width]] * len(images), np.int32)
        pixels, mask = normalised(canvas, sizes)
        texts = [". ".join(phrases) + "." for phrases in captions]
        length = max(len(self.tokenizer.encode(text).ids) for text in texts)
        text = text_inputs(self.tokenizer, texts, length)
        return {
            "pixel_values": pixels.to(self.device),
            "pixel_mask": mask.to(self.device),
            "input_ids": torch.from_numpy(text["input_ids"]).to(self.device),
            "attention_mask": torch.from_numpy(text["attention_mask"]).to(self.device),
        }


def run(device: str, steps: int | None, states: Path, weights: Path) -> None:
    """Train and write the weights."""
    name = "grounding_dino"
    train_family(Learner, RECIPE, name, device=device, steps=steps, states=states, weights=weights / name)


if __name__ == "__main__":
    main(run)

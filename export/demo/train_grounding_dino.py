"""Teaches the demo Grounding DINO to find what "red circle" names.

Trained from nothing, the published loss (each object matched to one query) learns too little in hours. Here
every place of the image that lies well inside an object learns to propose it, for the tokens of its phrases;
and every query whose proposal overlaps an object learns to refine it. So several queries find one object, and
callers want non-maximum suppression.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import (  # type: ignore[import-untyped]
    box_convert,
    box_iou,
    generalized_box_iou_loss,
    sigmoid_focal_loss,
)

from export import bert_tokenizer
from export.demo import scenes
from export.demo.command import main
from export.demo.evaluate import asked_phrases, right_boxes, unseen
from export.demo.training import Recipe, save_halves, train
from export.grounding_dino import text_inputs
from export.grounding_dino_variants import DEMO_SIZES, DEMO_THRESHOLDS, VARIANTS
from export.pixels import normalised
from gateway.models.grounding_dino import Detection, GroundingDinoSpec
from gateway.models.grounding_dino_text import TextTokenizer

RECIPE = Recipe(steps=6500, learning_rate=1e-3, warmup=300, bfloat16=True, weight_decay=0.02)
BATCH = 16
SIZES = ((160, 160), (160, 120), (120, 160))
"""(width, height) of the scenes: each fits a canvas of the model."""
SCENES = 3000
"""So many of each size are drawn, then mirrored and named anew each time."""
PLAN = scenes.Plan(words=(0, 2))
MAX_PHRASES = 10
CONFUSABLE = 4.0
"""How much likelier a phrase is asked for that shares a word with something that is there."""
FACE = "face"

LONGEST_TEXT = 256

# Of an object's box: places in its middle learn it; between that and the edge they learn nothing.
CORE = 0.6
# Proposals that overlap an object so much are refined to it, and those of less than half of it are not it.
SAME_OBJECT, OTHER_OBJECT = 0.5, 0.3
BOX_WEIGHT, OVERLAP_WEIGHT, DENSE_WEIGHT = 5.0, 2.0, 1.0
ALPHA = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A picture uint8 [H,W,3], its objects' names, and their boxes float32 [N,4] xyxy in 0..1."""

    image: NDArray[np.uint8]
    names: tuple[str, ...]
    boxes: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """What a batch should answer, for one image after the other.

    boxes: float32 [N,4] xyxy in 0..1 of the valid image. tokens: bool [N,T], the tokens that name the object.
    """

    boxes: list[Tensor]
    tokens: list[Tensor]


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
        """Dense loss of the proposals and one-to-many loss of the queries."""
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
        """Recall and precision at IoU 0.5 over 30 scenes; most phrases are of what is not there."""
        right = wanted = claimed = 0
        for index, scene in enumerate(unseen(30)):
            found = self.detect(scene.image, asked_phrases(scene, index))
            right += right_boxes(scene, [(item.phrase, item.box) for item in found])
            wanted += len(scene.things)
            claimed += len(found)
        return f"recall {right / wanted:.3f}, precision {right / max(1, claimed):.3f}"

    @torch.no_grad()
    def detect(self, image: NDArray[np.uint8], phrases: Sequence[str]) -> list[Detection]:
        """What the phrases find in an image of any size, answered as the gateway does by default."""
        processor = GroundingDinoSpec(
            shortest_edge=int(DEMO_SIZES["shortest_edge"]),
            longest_edge=int(DEMO_SIZES["longest_edge"]),
            canvases=tuple((-(-height // 32) * 32, -(-width // 32) * 32) for width, height in SIZES),
            text=TextTokenizer(self.tokenizer, (LONGEST_TEXT,)),
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
        # What is tied is kept once, and made again from the rest.
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


def draw(seed: int, width: int, height: int) -> Example:
    """The scene of a seed, as what its phrases find."""
    scene = scenes.draw(seed, width, height, PLAN)
    names = [thing.phrase for thing in scene.things] + [FACE] * len(scene.faces)
    boxes = [thing.box for thing in scene.things] + [face.box for face in scene.faces]
    size = np.array([width, height, width, height], np.float32)
    return Example(scene.image, tuple(names), (np.array(boxes, np.float32).reshape(-1, 4) / size).clip(0, 1))


def mirrored(example: Example, is_mirrored: bool) -> Example:
    """The same, or its image in a mirror."""
    if not is_mirrored:
        return example
    x_min, y_min, x_max, y_max = example.boxes.T
    boxes = np.stack([1 - x_max, y_min, 1 - x_min, y_max], axis=1)
    return replace(example, image=example.image[:, ::-1], boxes=boxes)


def phrases_for(names: Sequence[str], random: np.random.Generator, present: float = 0.8) -> list[str]:
    """Phrases to ask for: of what is there, each with a chance of `present`, and some that are not there.

    Of those, the ones that share a word with what is there teach most, and are chosen most often.
    """
    there = [name for name in dict.fromkeys(names) if random.random() < present]
    others = [name for name in (*scenes.PHRASES, FACE) if name not in names]
    count = int(random.integers(max(1, len(there)), MAX_PHRASES + 1)) - len(there)
    words = {word for name in names for word in name.split()}
    chances = np.array([1.0 if words.isdisjoint(name.split()) else CONFUSABLE for name in others])
    absent = random.choice(
        others, max(count, 0 if there else 1), replace=False, p=chances / chances.sum()
    ).tolist()
    phrases = there + absent
    return [phrases[index] for index in random.permutation(len(phrases))]


def targets_for(
    batch: Sequence[Example], captions: Sequence[Sequence[str]], inputs: dict[str, Tensor], tokenizer: Any
) -> Targets:
    """Boxes and tokens of the objects that were asked for."""
    boxes, tokens = [], []
    device, length = inputs["input_ids"].device, inputs["input_ids"].shape[1]
    for example, phrases in zip(batch, captions, strict=True):
        spans = {}
        position = 1
        for phrase in phrases:
            count = len(tokenizer.encode(phrase, add_special_tokens=False).ids)
            spans[phrase] = (position, position + count)
            position += count + 1
        asked = [index for index, name in enumerate(example.names) if name in spans]
        of_tokens = torch.zeros(len(asked), length, dtype=torch.bool)
        for row, index in enumerate(asked):
            of_tokens[row, slice(*spans[example.names[index]])] = True
        boxes.append(torch.from_numpy(example.boxes[asked]).to(device))
        tokens.append(of_tokens.to(device))
    return Targets(boxes, tokens)


def dense_loss(output: Any, targets: Targets, inputs: dict[str, Tensor], valid: Tensor) -> dict[str, Tensor]:
    """Every place in an object's core is positive for its tokens, and proposes its box.

    The tokens between phrases must learn that they name nothing: the places whose best token scores most
    become the queries. `valid` is the share (x, y) of the canvas that the image covers.
    """
    length = inputs["input_ids"].shape[1]
    places, reach = places_of(inputs["pixel_values"].shape[-2:], valid)
    labels, weights, chosen, wanted = [], [], [], []
    for image, (boxes, tokens) in enumerate(zip(targets.boxes, targets.tokens, strict=True)):
        owner, is_core, is_inside = owners(places, reach, boxes)
        named = tokens[owner] if len(boxes) else tokens.new_zeros(len(places), length)
        labels.append(named & is_core[:, None])
        weights.append(~(named & (is_inside & ~is_core)[:, None]))
        rows = is_core.nonzero()[:, 0]
        chosen.append(rows + image * len(places))
        wanted.append(boxes[owner[rows]] if len(boxes) else boxes)
    logits = output.enc_outputs_class[..., :length].float()
    usable = inputs["attention_mask"].bool()[:, None] & (places < 1).all(-1)[None, :, None]
    weight = torch.stack(weights) & usable
    scores = _focal(logits, torch.stack(labels), weight)
    boxes = output.enc_outputs_coord_logits.flatten(0, 1)[torch.cat(chosen)].float()
    finite = boxes.isfinite().all(-1)
    near, overlap = _box_losses(boxes[finite].sigmoid(), torch.cat(wanted)[finite])
    return {"dense score": DENSE_WEIGHT * scores, "dense L1": near, "dense GIoU": overlap}


def query_loss(network: Any, output: Any, targets: Targets, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every query whose proposal overlaps an object is positive for it, in all layers of the decoder."""
    length = inputs["input_ids"].shape[1]
    usable = inputs["attention_mask"].bool()[:, None]
    references = box_convert(output.init_reference_points.float(), "cxcywh", "xyxy")
    labels, weights, chosen, wanted = [], [], [], []
    for image, (boxes, tokens) in enumerate(zip(targets.boxes, targets.tokens, strict=True)):
        if len(boxes):
            best, owner = box_iou(references[image], boxes).max(1)
        else:
            best, owner = references.new_zeros(references.shape[1]), None
        named = tokens[owner] if owner is not None else tokens.new_zeros(len(best), length)
        same = best >= SAME_OBJECT
        labels.append(named & same[:, None])
        weights.append(~(named & ((best > OTHER_OBJECT) & ~same)[:, None]))
        rows = same.nonzero()[:, 0]
        chosen.append(rows + image * len(best))
        wanted.append(boxes[owner[rows]] if owner is not None else boxes)
    label, weight, rows = torch.stack(labels), torch.stack(weights) & usable, torch.cat(chosen)
    layers = []
    before = output.init_reference_points
    text = output.encoder_last_hidden_state_text
    mask = inputs["attention_mask"].bool()
    for layer in range(output.intermediate_hidden_states.shape[1]):
        hidden = output.intermediate_hidden_states[:, layer]
        logits = network.class_embed[layer](hidden, text, mask)[..., :length].float()
        boxes = (network.bbox_embed[layer](hidden) + torch.special.logit(before, eps=1e-5)).sigmoid()
        near, overlap = _box_losses(boxes.flatten(0, 1)[rows].float(), torch.cat(wanted))
        layers.append(torch.stack([_focal(logits, label, weight), near, overlap]))
        before = output.intermediate_reference_points[:, layer]
    names = ("query score", "query L1", "query GIoU")
    return dict(zip(names, torch.stack(layers).sum(0), strict=True))


def places_of(size: Sequence[int], valid: Tensor) -> tuple[Tensor, Tensor]:
    """Centres [L,2] of all places of the three levels in 0..1 of the valid image, and half their extent."""
    centres, reach = [], []
    for stride in (8, 16, 32):
        height, width = size[0] // stride, size[1] // stride
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        share = torch.stack([(x + 0.5) / width, (y + 0.5) / height], -1).reshape(-1, 2).to(valid.device)
        centres.append(share / valid)
        half = 0.5 / (torch.tensor([width, height], device=valid.device) * valid)
        # Only the finest level must catch every object.
        reach.append((half if stride == 8 else half * 0).expand(len(share), 2))
    return torch.cat(centres), torch.cat(reach)


def owners(places: Tensor, reach: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The nearest object of every place [L], whether it lies in that one's core, whether in its box."""
    if not len(boxes):
        nothing = torch.zeros(len(places), dtype=torch.bool, device=places.device)
        return nothing.long(), nothing, nothing
    middle, extent = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    away = (places[:, None] - middle).abs()
    distance, owner = (away / extent).amax(-1).min(1)
    core = torch.maximum(CORE * extent[owner], reach)
    is_core = (away[torch.arange(len(places)), owner] <= core).all(-1)
    return owner, is_core, distance <= 1


def _focal(logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    loss: Tensor = sigmoid_focal_loss(
        logits.masked_fill(~weight, 0), label.to(logits.dtype), alpha=ALPHA, gamma=2
    )
    return (loss * weight).sum() / label.sum().clamp(min=1)


def _box_losses(boxes: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """L1 and GIoU of boxes [N,4] cxcywh, where [N,4] xyxy are wanted."""
    if not len(boxes):
        return boxes.sum(), boxes.sum()
    near = functional.l1_loss(boxes, box_convert(wanted, "xyxy", "cxcywh"))
    overlap = generalized_box_iou_loss(box_convert(boxes, "cxcywh", "xyxy"), wanted, reduction="mean")
    return BOX_WEIGHT * near, OVERLAP_WEIGHT * overlap


def run(device: str, steps: int | None, states: Path, weights: Path) -> None:
    """Train, or go on training."""
    recipe = RECIPE if steps is None else replace(RECIPE, steps=steps)
    train(
        Learner,
        recipe,
        "grounding_dino",
        state=states / "grounding_dino.pt",
        weights=weights / "grounding_dino",
        device=device,
    )


if __name__ == "__main__":
    main(run)

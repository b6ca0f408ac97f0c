"""What the demo Grounding DINO should answer, and the losses that say how far it is from that."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import (  # type: ignore[import-untyped]
    box_convert,
    box_iou,
    generalized_box_iou_loss,
    sigmoid_focal_loss,
)

from export.demo.grounding_dino_examples import Example

# Places in the middle part of an object's box, this share of it, learn the object. Places between that and
# the edge learn nothing.
CORE = 0.6
# A proposal that overlaps an object by the first IoU or more is refined to it. One that overlaps by less than
# the second learns that it is not the object. Those between learn nothing.
MIN_SAME_OBJECT, MAX_OTHER_OBJECT = 0.5, 0.3
BOX_WEIGHT, OVERLAP_WEIGHT, DENSE_WEIGHT = 5.0, 2.0, 1.0
ALPHA = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """The right answers for a batch, one entry per image.

    boxes: float32 [N,4] xyxy in 0..1 of the valid image. tokens: bool [N,T], the tokens that name the object.
    """

    boxes: list[Tensor]
    tokens: list[Tensor]


def targets_for(
    batch: Sequence[Example], captions: Sequence[Sequence[str]], inputs: dict[str, Tensor], tokenizer: Any
) -> Targets:
    """Return the boxes and tokens of the objects that the captions ask for."""
    boxes, tokens = [], []
    device, length = inputs["input_ids"].device, inputs["input_ids"].shape[1]
    for example, phrases in zip(batch, captions, strict=True):
        spans = {}
        position = 1
        for phrase in phrases:
            count = len(tokenizer.encode(phrase, add_special_tokens=False).ids)
            spans[phrase] = (position, position + count)
            position += count + 1
        wanted = [index for index, name in enumerate(example.names) if name in spans]
        of_tokens = torch.zeros(len(wanted), length, dtype=torch.bool)
        for row, index in enumerate(wanted):
            of_tokens[row, slice(*spans[example.names[index]])] = True
        boxes.append(torch.from_numpy(example.boxes[wanted]).to(device))
        tokens.append(of_tokens.to(device))
    return Targets(boxes, tokens)


def dense_loss(output: Any, targets: Targets, inputs: dict[str, Tensor], valid: Tensor) -> dict[str, Tensor]:
    """Return the loss of the proposals.

    Every place in an object's core is positive for the object's tokens, and proposes its box. The tokens
    between phrases must learn that they name nothing, because the places whose best token scores most become
    the queries. `valid` is the share (x, y) of the canvas that the image covers.
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
    """Return the loss of the queries.

    Every query whose proposal overlaps an object is positive for it, in all layers of the decoder.
    """
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
        same = best >= MIN_SAME_OBJECT
        labels.append(named & same[:, None])
        weights.append(~(named & ((best > MAX_OTHER_OBJECT) & ~same)[:, None]))
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
    """Return the centres [L,2] of the places of all three levels, and half their size.

    Both are in 0..1 of the valid image.
    """
    centres, reach = [], []
    for stride in (8, 16, 32):
        height, width = size[0] // stride, size[1] // stride
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        share = torch.stack([(x + 0.5) / width, (y + 0.5) / height], -1).reshape(-1, 2).to(valid.device)
        centres.append(share / valid)
        half = 0.5 / (torch.tensor([width, height], device=valid.device) * valid)
        # Only the finest level must have a place for every object.
        reach.append((half if stride == 8 else half * 0).expand(len(share), 2))
    return torch.cat(centres), torch.cat(reach)


def owners(places: Tensor, reach: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the nearest object of every place [L], and whether the place is in its core and in its box."""
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
    """Return the L1 and GIoU losses of boxes [N,4] cxcywh against the right ones [N,4] xyxy."""
    if not len(boxes):
        return boxes.sum(), boxes.sum()
    near = functional.l1_loss(boxes, box_convert(wanted, "xyxy", "cxcywh"))
    overlap = generalized_box_iou_loss(box_convert(boxes, "cxcywh", "xyxy"), wanted, reduction="mean")
    return BOX_WEIGHT * near, OVERLAP_WEIGHT * overlap

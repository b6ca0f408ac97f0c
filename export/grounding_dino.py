"""Grounding DINO: image and text to boxes, with the score of every token for every box."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from export import bert_tokenizer, grounding_dino_attention, ranges
from export.families.grounding_dino import FAMILY, THRESHOLDS, VARIANTS, tiny_config
from export.graph import Arrays, Export, Graph
from export.measures import boxes_of_phrases
from export.photos import pictures, scene
from export.pictures import noise_images
from export.pixels import NormaliseValid, normalised
from export.weights import Options, load

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# What places boxes and scores them stays in float32, where half precision is too coarse.
HALF_KEPT_OUT = ("bbox_embed", "class_embed", "enc_output", "reference_points", "sampling_offsets")


def build(options: Options) -> tuple[Any, "Tokenizer", str]:
    """Return transformers' own model, whose weights `prepare` exports, its tokenizer, the variant's name."""
    from transformers import GroundingDinoForObjectDetection

    def is_same(config: Any, other: Any) -> bool:
        return sizes(config.backbone_config) == sizes(other.backbone_config)

    def sizes(backbone: Any) -> tuple[int, list[int]]:
        return backbone.embed_dim, list(backbone.depths)

    variants = dict(VARIANTS)
    if options.vocabulary is not None:
        # Only the toy grows with its vocabulary. All others have the size of BERT's.
        size = len(bert_tokenizer.read_vocabulary(options.vocabulary))
        variants["tiny"] = replace(VARIANTS["tiny"], config=partial(tiny_config, size))
    model, variant = load(GroundingDinoForObjectDetection, variants, is_same, options)
    tokenizer = _tokenizer(options, variant)
    bert_tokenizer.check(tokenizer, model.config.text_config.vocab_size)
    return model, tokenizer, variant


def _tokenizer(options: Options, variant: str) -> "Tokenizer":
    if options.vocabulary is not None:
        return bert_tokenizer.from_vocabulary(bert_tokenizer.read_vocabulary(options.vocabulary))
    if options.weights in {"random", "demo"}:
        return bert_tokenizer.from_vocabulary(bert_tokenizer.own_vocabulary())
    if options.weights == "hub":
        return bert_tokenizer.from_hub(str(VARIANTS[variant].hub), options.revision)
    return bert_tokenizer.from_folder(Path(options.weights))


def prepare(options: Options) -> Export:
    """Describe the graph, with the reference that it must agree with."""
    model, tokenizer, variant = build(options)
    backbone = model.config.backbone_config
    window = 2 ** (len(backbone.depths) + 1) * backbone.window_size
    # Larger than the window, and at no stage a multiple of it. Only then does the trace contain the code that
    # pads to whole windows and crops again, which other sizes need.
    sides = [window + 32, window + 64, window + 96, window + 128]
    captions = ["a red circle. the small dog.", "two cats on a table?", "hot dog. dog."]

    def case(seed: int, height: int, width: int, length: int, *valid: tuple[int, int]) -> Arrays:
        texts = [captions[(seed + i) % len(captions)] for i in range(len(valid))]
        return noise_images(seed, height, width, valid) | text_inputs(tokenizer, texts, length)

    def photos() -> list[Arrays]:
        side = max(sides[-1], -(-384 // window) * window)
        valid = np.full((1, 2), side, np.int32)
        drawn = scene()
        shown = "person. " + "".join(f"{thing.phrase}. " for thing in (drawn.things if drawn else ()))
        text = text_inputs(tokenizer, [shown], 32)
        return [{"image": picture[None], "valid_size": valid} | text for picture in pictures(side, side)]

    example = case(0, sides[0], sides[1], 16, (sides[0], sides[1] - 21), (sides[0] - 40, sides[1]))
    parameters = {"family": FAMILY.name, "variant": variant, **VARIANTS[variant].parameters}
    if options.weights == "random":
        # Random scores mean nothing, and NMS would hide how the boxes differ from the reference's.
        parameters = {name: value for name, value in parameters.items() if name not in THRESHOLDS}
    text = {0: "batch", 1: "tokens"}
    queries = model.config.num_queries
    return Export(
        graphs=[
            Graph(
                model="grounding_dino",
                module=Detector(model),
                inputs=example,
                outputs={"logits": ("batch", queries, "tokens"), "boxes": ("batch", queries, 4)},
                dynamic={
                    "image": {0: "batch", 1: "height", 2: "width"},
                    "valid_size": {0: "batch"},
                    "input_ids": text,
                    "attention_mask": text,
                    "position_ids": text,
                    "text_self_attention_mask": text | {2: "tokens"},
                },
                cases=[
                    case(1, sides[1], sides[0], 32, (sides[1], sides[0])),
                    case(2, sides[0], sides[3], 16, (sides[0] - 1, sides[3]), (50, sides[3] - 33), (9, 9)),
                    case(3, sides[2], sides[2], 19, (sides[2] - 31, sides[2] - 64), (sides[2], 77)),
                ],
                reference=partial(reference, model),
                warmup=[_photo(parameters) | text_inputs(tokenizer, captions[:1], 16)],
                parameters=parameters,
                ranges={
                    **ranges.of_canvases(parameters["canvases"]),
                    "tokens": ranges.of_sizes([int(size) for size in parameters["text_lengths"].split(",")]),
                },
                probes={"proposals": ("batch", queries), "proposal_scores": ("batch", queries)},
                measures=[boxes_of_phrases(float(parameters.get("box_threshold", 1)))],
                photos=photos,
                tolerance=1e-3,
                dynamo=False,
                opset=17,
                half_kept_out=HALF_KEPT_OUT,
            )
        ],
        files={"grounding_dino/tokenizer.json": tokenizer.to_str(pretty=True)},
    )


def _photo(parameters: Mapping[str, str]) -> Arrays:
    """Return the image tensors of a photo of 4:3, as the gateway sends them.

    Other canvases and longer captions are not warmed up: on a CPU each would take seconds.
    """
    short = min(int(parameters["shortest_edge"]), int(parameters["longest_edge"]) * 3 // 4)
    size = np.array([short, short * 4 // 3], np.int32)
    canvases = [[int(side) for side in text.split("x")] for text in parameters["canvases"].split(",")]
    canvas = min((canvas for canvas in canvases if (size <= canvas).all()), key=math.prod)
    return {"image": np.zeros((1, *canvas, 3), np.uint8), "valid_size": size[None]}


def text_inputs(tokenizer: "Tokenizer", captions: Sequence[str], length: int) -> Arrays:
    """Return the text tensors of the graph, made by transformers' own functions."""
    from transformers.models.grounding_dino import modeling_grounding_dino as modeling

    encodings = [tokenizer.encode(caption) for caption in captions]
    ids = np.zeros((len(captions), length), np.int64)
    mask = np.zeros_like(ids)
    for row, encoding in enumerate(encodings):
        ids[row, : len(encoding.ids)] = encoding.ids
        mask[row, : len(encoding.ids)] = 1
    make_masks: Any = modeling.generate_masks_with_special_tokens_and_transfer_map
    attention, positions = make_masks(torch.from_numpy(ids), torch.tensor(modeling.SPECIAL_TOKENS))
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": positions.numpy(),
        "text_self_attention_mask": attention.numpy(),
    }


class Detector(nn.Module):
    """The graph: transformers' model on bytes, with only the boxes and logits of the last decoder layer."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.normalise = NormaliseValid()
        self.detector = model

    def forward(
        self,
        image: Tensor,
        valid_size: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        text_self_attention_mask: Tensor,
    ) -> tuple[Tensor, ...]:
        pixels, valid = self.normalise(image, valid_size)
        with (
            _exportable(text_self_attention_mask, position_ids) as top_k,
            grounding_dino_attention.rewritten(),
        ):
            output = self.detector.model(
                pixel_values=pixels, pixel_mask=valid, input_ids=input_ids, attention_mask=attention_mask
            )
            hidden = output.intermediate_hidden_states[:, -1]
            logits = self.detector.class_embed[-1](
                hidden, output.encoder_last_hidden_state_text, attention_mask.bool()
            )
        # Each layer refines the boxes of the one before it.
        before = output.intermediate_reference_points[:, -2]
        boxes = self.detector.bbox_embed[-1](hidden) + torch.special.logit(before, eps=1e-5)
        [(scores, proposals)] = top_k
        return logits, boxes.sigmoid(), proposals, scores


@contextmanager
def _exportable(text_mask: Tensor, position_ids: Tensor) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Replace what a trace of transformers' model would get wrong. Yield a list of what top-k chooses.

    All but the first of these faults are silent: the graph runs on sizes other than the example's, and its
    answers are wrong.
    """
    from transformers.models.grounding_dino import modeling_grounding_dino as modeling

    top_k, as_tensor = torch.topk, torch.as_tensor
    chosen: list[tuple[Tensor, Tensor]] = []

    def masks(*_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        # They are made of token ids with operators that do not export, so the caller feeds them.
        return text_mask, position_ids

    def linspace(start: Any, end: Any, steps: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
        # The trace would bake the number of steps in. All callers step by one.
        counted: Tensor = torch.arange(steps, dtype=dtype, device=device) + start
        return counted

    def stacked(data: Any, **kwargs: Any) -> Tensor:
        # In a trace, a tensor made of a list of sizes is a constant.
        if isinstance(data, list):
            return torch.stack([torch.stack([as_tensor(size) for size in sizes]) for sizes in data])
        return as_tensor(data, **kwargs)

    def contrast(self: Any, vision: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        # The original, but not padded to 256 tokens: that size is baked in, and most of it is never read.
        logits: Tensor = vision @ text.transpose(-1, -2)
        return logits.masked_fill(~mask[:, None, :], float("-inf"))

    def record(*args: Any, **kwargs: Any) -> Any:
        values, indices = top_k(*args, **kwargs)
        chosen.append((values, indices))
        return values, indices

    with (
        mock.patch.object(modeling, "generate_masks_with_special_tokens_and_transfer_map", masks),
        mock.patch.object(modeling.GroundingDinoContrastiveEmbedding, "forward", contrast),
        mock.patch.object(nn.functional, "interpolate", resize_nearest),
        mock.patch.object(torch, "linspace", linspace),
        mock.patch.object(torch, "as_tensor", stacked),
        mock.patch.object(torch, "topk", record),
    ):
        yield chosen


def resize_nearest(mask: Tensor, size: Sequence[Any]) -> Tensor:
    """Resize [...,H,W] as PyTorch's nearest interpolation does, step by step in float32.

    ONNX Runtime's Resize rounds some rows the other way.
    """
    for dim, count in zip((-2, -1), size, strict=True):
        scale = _number(mask.shape[dim], mask) / _number(count, mask)
        index = (torch.arange(count, device=mask.device).to(torch.float32) * scale).floor().long()
        mask = mask.index_select(dim, index)
    return mask


def _number(size: Any, like: Tensor) -> Tensor:
    # In a trace, a size is a tensor already, and must stay one.
    return torch.as_tensor(size, device=like.device).to(torch.float32)


@torch.no_grad()
def reference(model: Any, inputs: Arrays, outputs: Arrays) -> Arrays:
    """Return the answers of transformers' own model for float pixels and a pixel mask.

    Its decoder starts from the best-scored places of the image. If rounding decides between near-ties, a swap
    changes both rows of the answer. So the reference follows the graph's choice if its scores are as good.
    """
    pixels, mask = normalised(inputs["image"], inputs["valid_size"])
    top_k = torch.topk
    best: list[Tensor] = []

    def follow(scores: Tensor, count: int, dim: int) -> tuple[Tensor, Tensor]:
        values, indices = top_k(scores, count, dim=dim)
        best.append(values)
        if "proposals" not in outputs:
            return values, indices
        theirs = torch.from_numpy(outputs["proposals"])
        spread = 2e-2 * values.abs().max()
        distinct = all(len(row.unique()) == count for row in theirs)
        if distinct and torch.allclose(scores.gather(1, theirs), values, rtol=0, atol=float(spread)):
            return values, theirs
        return values, indices

    with mock.patch.object(torch, "topk", follow):
        result = model(
            pixel_values=pixels,
            pixel_mask=mask,
            input_ids=torch.from_numpy(inputs["input_ids"]),
            attention_mask=torch.from_numpy(inputs["attention_mask"]),
        )
    return {
        "logits": result.logits[..., : inputs["input_ids"].shape[1]].numpy(),
        "boxes": result.pred_boxes.numpy(),
        "proposal_scores": best[0].numpy(),
    }

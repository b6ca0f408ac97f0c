"""Grounding DINO's layers, written so that its graph keeps less in memory and gives the same answers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from export import attention, layers


@contextmanager
def rewritten() -> Iterator[None]:
    """Replace layers of transformers' model while a graph is traced."""
    from transformers.models.grounding_dino import modeling_grounding_dino as modeling

    with (
        mock.patch.object(modeling.MultiScaleDeformableAttention, "forward", deformable),
        mock.patch.object(modeling.GroundingDinoMultiheadAttention, "forward", multi_head),
        mock.patch.object(modeling.GroundingDinoBiMultiHeadAttention, "forward", both_ways),
        layers.linear(),
    ):
        yield


def deformable(
    _self: nn.Module,
    value: Tensor,
    _spatial_shapes: Tensor,
    sizes: Sequence[tuple[Any, Any]],
    _level_start_index: Tensor,
    locations: Tensor,
    weights: Tensor,
    _im2col_step: int,
) -> Tensor:
    """Sample every level of feature maps at its points, and return the weighted sum [B,Q,heads*size].

    `value` is [B,sum of H*W,heads,size], `locations` [B,Q,heads,levels,points,2] in 0..1, `weights` the same
    without the last axis. The original stacks the samples of all levels before it weights them. For an image
    of 800x1088 that is 0.3 GB in each layer, and as much again for the product.
    """
    batch, _, heads, size = value.shape
    _, queries, _, _, points, _ = locations.shape
    # Queries come last, so that sums over points run over whole rows.
    grids = (2 * locations - 1).permute(0, 2, 3, 4, 1, 5)
    shares = weights.permute(0, 2, 3, 4, 1)
    maps = torch.split(value, [height * width for height, width in sizes], dim=1)
    total: Tensor | None = None
    for level, (height, width) in enumerate(sizes):
        sampled = nn.functional.grid_sample(
            maps[level].flatten(2).transpose(1, 2).reshape(batch * heads, size, height, width),
            grids[:, :, level].flatten(0, 1),
            mode="bilinear",
            padding_mode="zeros",
            align_corners=False,
        )
        share = shares[:, :, level].reshape(batch * heads, 1, points, queries)
        weighted = (sampled * share).sum(2)
        total = weighted if total is None else total + weighted
    assert total is not None
    return total.view(batch, heads * size, queries).transpose(1, 2)


def multi_head(
    self: Any,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    attention_mask: Tensor | None = None,
    output_attentions: bool = False,
) -> tuple[Tensor, None]:
    """Attend among the text's tokens, among the queries, or from the queries to the tokens.

    `attention_mask` [B,heads,Q,K] is added to the scores. The original's least float32 is no half. The least
    half hides a key as well.
    """
    bias = None if attention_mask is None else attention_mask.clamp(min=torch.finfo(torch.float16).min)
    mixed = attention.multi_head(
        self.query(queries), self.key(keys), self.value(values), self.num_attention_heads, bias=bias
    )
    return self.out_proj(mixed), None


def both_ways(
    self: Any,
    vision_features: Tensor,
    text_features: Tensor,
    vision_attention_mask: Tensor,
    text_attention_mask: Tensor,
) -> tuple[tuple[Tensor, None], tuple[Tensor, None]]:
    """Attend from the image [B,N,C] to the text [B,T,C] and back, with one set of scores.

    The masks [B,N] and [B,T] are true where there is padding. The original moves the scores by their maximum
    and bounds them, six times the size of the scores. A softmax does the former itself, and the bound of
    50000 below the maximum changes nothing that is not zero after the softmax.
    """

    def by_heads(projection: nn.Module, features: Tensor) -> Tensor:
        # In a trace, `unflatten` would bake in the example's batch.
        split: Tensor = projection(features).view(*features.shape[:2], self.num_heads, self.head_dim)
        return split.transpose(1, 2)

    def mixed(scores: Tensor, padding: Tensor, values: Tensor) -> Tensor:
        shares = scores.masked_fill(padding[:, None, None, :], float("-inf")).softmax(-1)
        return (shares @ values).transpose(1, 2).flatten(2)

    keys = by_heads(self.text_proj, text_features)
    scores = (by_heads(self.vision_proj, vision_features) * self.scale) @ keys.transpose(2, 3)
    to_text = mixed(scores, text_attention_mask, by_heads(self.values_text_proj, text_features))
    to_image = mixed(
        scores.transpose(2, 3), vision_attention_mask, by_heads(self.values_vision_proj, vision_features)
    )
    return (self.out_vision_proj(to_text), None), (self.out_text_proj(to_image), None)

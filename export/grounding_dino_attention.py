"""Grounding DINO's attention, written so that its graph keeps less in memory and gives the same answers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn


@contextmanager
def rewritten() -> Iterator[None]:
    """Replace transformers' attention while a graph is traced."""
    from transformers.models.grounding_dino import modeling_grounding_dino as modeling

    with mock.patch.object(modeling.MultiScaleDeformableAttention, "forward", deformable):
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
    without the last axis. The original stacks the samples of all levels before it weights them. For an image of
    800x1088 that is 0.3 GB in each layer, and as much again for the product.
    """
    batch, _, heads, size = value.shape
    _, queries, _, levels, points, _ = locations.shape
    # Queries come last, so that sums over points run over whole rows.
    grids = (2 * locations - 1).permute(0, 2, 3, 4, 1, 5)
    shares = weights.permute(0, 2, 3, 4, 1)
    maps = value.split([height * width for height, width in sizes], dim=1)
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

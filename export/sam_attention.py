"""The attention of SAM's image encoder, with its relative positions inside the product of queries and keys.

transformers' module adds a bias to the scores of all pairs, which are 4096 times 4096 of each head where it
looks at the whole image. The bias of a pair is the query's product with one vector for the key's row and
another for its column. So the queries get these products with all rows and columns appended, and every key a
one at its own row and its own column. Then no score is ever stored.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from export import attention

# GPU kernels want sizes of heads that are a multiple of this.
ALIGNMENT = 8


@contextmanager
def without_bias() -> Iterator[None]:
    """Let transformers' SAM compute its image encoder's attention in this way."""
    from transformers.models.sam.modeling_sam import SamVisionSdpaAttention

    with mock.patch.object(SamVisionSdpaAttention, "forward", attend):
        yield


def attend(module: Any, hidden_states: Tensor, output_attentions: bool = False) -> tuple[Tensor, None]:
    """Return what SamVisionSdpaAttention's own forward does for a map or windows [B,H,W,C]."""
    batch, height, width, _ = hidden_states.shape
    heads, cells = module.num_attention_heads, height * width
    query, key, value = module.qkv(hidden_states).reshape(batch, cells, 3, heads, -1).unbind(2)
    size = query.shape[-1]
    # The operator scales the products with rows and columns too, which must come out as they are.
    rows = _vectors(module.rel_pos_h, height) * size**0.5
    columns = _vectors(module.rel_pos_w, width) * size**0.5
    padding = -(size + height + width) % ALIGNMENT
    columns = torch.nn.functional.pad(columns, (0, padding))
    by_row = query.reshape(batch, height, width * heads, size) @ rows
    grid = query.reshape(batch, height, width, heads, size).transpose(1, 2)
    by_column = grid.reshape(batch, width, height * heads, size) @ columns
    by_column = by_column.reshape(batch, width, height, heads, -1).transpose(1, 2)
    query = torch.cat(
        [query, by_row.reshape(batch, cells, heads, -1), by_column.reshape(batch, cells, heads, -1)], dim=-1
    )
    place = torch.arange(cells)
    own = torch.cat(
        [
            (place[:, None] // width == torch.arange(height)).to(key.dtype),
            (place[:, None] % width == torch.arange(width + padding)).to(key.dtype),
        ],
        dim=-1,
    )
    key = torch.cat([key, own[None, :, None].expand(batch, -1, heads, -1)], dim=-1)
    result = attention.multi_head(query.flatten(2), key.flatten(2), value.flatten(2), heads, scale=size**-0.5)
    return module.proj(result.reshape(batch, height, width, -1)), None


def _vectors(relative: Tensor, count: int) -> Tensor:
    """Return [n,D,n]: for queries at row (or column) i, the vectors of keys at j.

    `relative` [2n-1,D] has them by distance.
    """
    place = torch.arange(count)
    return relative[place[:, None] - place + count - 1].transpose(1, 2)

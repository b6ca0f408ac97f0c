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

from export import attention, layers

# GPU kernels want sizes of heads that are a multiple of this.
ALIGNMENT = 8


@contextmanager
def rewritten() -> Iterator[None]:
    """Let transformers' SAM compute its image encoder's layers in this way."""
    from transformers.models.sam.modeling_sam import SamVisionLayer

    with mock.patch.object(SamVisionLayer, "forward", layer), layers.linear():
        yield


def layer(self: Any, hidden_states: Tensor) -> Tensor:
    """Return what SamVisionLayer's own forward does for a map [B,H,W,C].

    The original pads the map to whole windows before it projects it. Here only what is there is projected.
    """
    batch, height, width, _ = hidden_states.shape
    attention_layer, size = self.attn, self.window_size
    projected = attention_layer.qkv(self.layer_norm1(hidden_states))
    if size:
        cells, places = _windows(height, width, size)
        # A cell of zeros projects to the bias.
        padding = attention_layer.qkv.bias.expand(batch, 1, -1)
        padded = torch.cat([projected.flatten(1, 2), padding], dim=1)
        mixed = attend(
            attention_layer, padded.index_select(1, cells).reshape(-1, size, size, padded.shape[-1])
        )
        mixed = mixed.reshape(batch, len(cells), -1).index_select(1, places).reshape(hidden_states.shape)
    else:
        mixed = attend(attention_layer, projected)
    hidden_states = hidden_states + attention_layer.proj(mixed)
    result: Tensor = hidden_states + self.mlp(self.layer_norm2(hidden_states))
    return result


def _windows(height: int, width: int, size: int) -> tuple[Tensor, Tensor]:
    """Return the cells of all windows in turn, and for each cell its place among them.

    The number behind the last cell stands for padding.
    """
    rows, columns = (-(-length // size) for length in (height, width))
    place = torch.arange(rows * columns * size * size)
    window, inside = place // (size * size), place % (size * size)
    row = window // columns * size + inside // size
    column = window % columns * size + inside % size
    cells = torch.where((row < height) & (column < width), row * width + column, height * width)
    cell = torch.arange(height * width)
    row, column = cell // width, cell % width
    places = (row // size * columns + column // size) * size * size + row % size * size + column % size
    return cells, places


def attend(module: Any, projected: Tensor) -> Tensor:
    """Return what SamVisionSdpaAttention's own forward has before its last projection: [B,H,W,C].

    Takes the queries, keys and values of a map or of windows: [B,H,W,3C].
    """
    batch, height, width, _ = projected.shape
    heads, cells = module.num_attention_heads, height * width
    query, key, value = projected.reshape(batch, cells, 3, heads, -1).unbind(2)
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
    return result.reshape(batch, height, width, -1)


def _vectors(relative: Tensor, count: int) -> Tensor:
    """Return [n,D,n]: for queries at row (or column) i, the vectors of keys at j.

    `relative` [2n-1,D] has them by distance.
    """
    place = torch.arange(count)
    return relative[place[:, None] - place + count - 1].transpose(1, 2)

"""Attention as one operator of ONNX Runtime's own, in the graphs that it runs.

The exporters' plain graphs write the scores of all pairs to memory several times. `MultiHeadAttention` of the
domain com.microsoft never does. Within `fused()`, PyTorch's own attention is exported as this operator, and
with it that of transformers, timm and open_clip. Modules with attention of their own call `multi_head`, which
is plain PyTorch elsewhere.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional

_IS_FUSED = ContextVar("attention_is_fused", default=False)
_MASK_IS_CAUSAL = ContextVar("attention_mask_is_causal", default=False)
_OPERATOR = "com.microsoft::MultiHeadAttention"
# Inputs between the values and the bias: a bias of the projections, and a mask of keys.
_LEFT_OUT = (None, None)

_scaled_dot_product_attention: Any = functional.scaled_dot_product_attention
_multi_head_forward = nn.MultiheadAttention.forward


@contextmanager
def fused() -> Iterator[None]:
    """Let the graphs that are exported meanwhile have attention as one operator.

    What PyTorch computes meanwhile, outside an exporter, is as ever.
    """
    token = _IS_FUSED.set(True)
    try:
        with (
            mock.patch.object(functional, "scaled_dot_product_attention", _by_heads),
            mock.patch.object(nn.MultiheadAttention, "forward", _layer),
        ):
            yield
    finally:
        _IS_FUSED.reset(token)


def is_fused() -> bool:
    """Return whether a graph that is exported now may have ONNX Runtime's own operators."""
    return _IS_FUSED.get()


@contextmanager
def causal_masks() -> Iterator[None]:
    """Take every mask [L,L] that PyTorch's attention is given meanwhile for the causal one.

    The operator has that one itself, and GPUs have no fast kernel for others. An exporter cannot look at a
    mask's values.
    """
    token = _MASK_IS_CAUSAL.set(True)
    try:
        yield
    finally:
        _MASK_IS_CAUSAL.reset(token)


def multi_head(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: int,
    *,
    scale: float | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    """Return softmax(scale * query · keyᵀ + bias) · value of every head: [B,Q,heads*V].

    Takes query [B,Q,heads*D], key [B,K,heads*D], value [B,K,heads*V]. `scale` is 1/√D if not given. `bias`
    [B or 1,heads or 1,Q,K] is added to the scores, or it is a mask that is true where a query may look. With
    `causal`, a query looks at no later key: there must be as many queries as keys.
    """
    if not (is_fused() and torch.onnx.is_in_onnx_export()):
        q, k, v = (
            tensor.reshape(*tensor.shape[:2], heads, -1).transpose(1, 2) for tensor in (query, key, value)
        )
        result: Tensor = _scaled_dot_product_attention(q, k, v, bias, 0.0, causal, scale=scale)
        return result.transpose(1, 2).flatten(2)
    if scale is None:
        scale = (query.shape[-1] // heads) ** -0.5
    if bias is not None:
        if bias.dtype == torch.bool:
            # The least number of halves too. Minus infinity would make a row without any key NaN.
            bias = torch.where(bias, 0.0, torch.finfo(torch.float16).min)
        # ONNX Runtime 1.19 wants one for every head, and reads behind the end of one that several rows share.
        bias = bias.expand(query.shape[0], heads, -1, -1)
    attributes: dict[str, Any] = {"num_heads": heads, "scale": float(scale), "unidirectional": int(causal)}
    if torch._C._get_tracing_state() is not None:
        traced: Tensor = _Traced.apply(query, key, value, bias, attributes)
        return traced
    inputs = (query, key, value) if bias is None else (query, key, value, *_LEFT_OUT, bias)
    shape = (*query.shape[:2], value.shape[-1])
    return torch.onnx.ops.symbolic(_OPERATOR, inputs, attributes, dtype=query.dtype, shape=shape, version=1)


class _Traced(torch.autograd.Function):
    """The operator in TorchScript's traces."""

    @staticmethod
    def forward(
        _context: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor | None,
        attributes: dict[str, Any],
    ) -> Tensor:
        """Compute it, for what the trace decides by values and shapes."""
        with mock.patch.object(torch.onnx, "is_in_onnx_export", return_value=False):
            return multi_head(
                query,
                key,
                value,
                attributes["num_heads"],
                scale=attributes["scale"],
                bias=bias,
                causal=bool(attributes["unidirectional"]),
            )

    @staticmethod
    def symbolic(graph: Any, query: Any, key: Any, value: Any, bias: Any, attributes: dict[str, Any]) -> Any:
        """Write it."""
        inputs = [query, key, value]
        if bias is not None:
            nothing = graph.op("prim::Constant")
            nothing.setType(torch._C.OptionalType.ofTensor())
            inputs += [nothing, nothing, bias]
        result = graph.op(
            _OPERATOR,
            *inputs,
            num_heads_i=attributes["num_heads"],
            scale_f=attributes["scale"],
            unidirectional_i=attributes["unidirectional"],
        )
        # Not the batch and the length of the example, which the exporter would take for fixed.
        sizes = value.type().varyingSizes()
        result.setType(query.type().with_sizes([None, None, sizes[-1] if sizes else None]))
        return result


def _by_heads(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """PyTorch's scaled_dot_product_attention, of [B,heads,L,D]."""
    if not torch.onnx.is_in_onnx_export() or query.ndim != 4 or dropout_p or enable_gqa:
        return _scaled_dot_product_attention(  # type: ignore[no-any-return]
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    if attn_mask is not None and attn_mask.ndim == 2 and _MASK_IS_CAUSAL.get():
        attn_mask, is_causal = None, True
    if attn_mask is not None and attn_mask.ndim < 4:
        attn_mask = attn_mask.reshape(*[1] * (4 - attn_mask.ndim), *attn_mask.shape)
    heads = int(query.shape[1])
    q, k, v = (tensor.transpose(1, 2).flatten(2) for tensor in (query, key, value))
    result = multi_head(q, k, v, heads, scale=scale, bias=attn_mask, causal=is_causal)
    # Not `unflatten`, with which a trace bakes in the example's batch.
    return result.reshape(query.shape[0], query.shape[2], heads, value.shape[3]).transpose(1, 2)


def _layer(
    self: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """PyTorch's MultiheadAttention, as open_clip calls it: without its many transposed copies."""
    mask = kwargs.get("attn_mask")
    is_simple = (
        torch.onnx.is_in_onnx_export()
        and query is key is value
        and self.batch_first
        and self.in_proj_weight is not None
        and not args
        and kwargs.get("need_weights") is False
        and kwargs.keys() <= {"need_weights", "attn_mask"}
        and (mask is None or mask.ndim == 2)
    )
    if not is_simple:
        return _multi_head_forward(self, query, key, value, *args, **kwargs)
    causal = mask is not None and _MASK_IS_CAUSAL.get()
    bias = None if mask is None or causal else mask[None, None]
    q, k, v = functional.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
    return self.out_proj(multi_head(q, k, v, self.num_heads, bias=bias, causal=causal)), None

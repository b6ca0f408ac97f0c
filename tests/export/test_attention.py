"""Attention as one operator: it computes what PyTorch's does, with both exporters, and only where asked."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from export import attention, onnx_writing
from export.graph import Arrays, Graph
from export.parity import difference, run

BATCH, QUERIES, KEYS, HEADS, SIZE = 2, 5, 7, 3, 4


class Module(nn.Module):
    """Calls a function, as exporters want it."""

    def __init__(self, function: Callable[..., Tensor], layer: nn.Module | None = None) -> None:
        super().__init__()
        self.function, self.layer = function, layer

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor]:
        return (self.function(query, key, value),)


def tensors(batch: int, queries: int, keys: int, width: int = HEADS * SIZE) -> Arrays:
    random = np.random.default_rng(batch)
    lengths = {"query": queries, "key": keys, "value": keys}
    return {
        name: random.normal(size=(batch, length, width)).astype(np.float32)
        for name, length in lengths.items()
    }


def written(path: Path, module: nn.Module, dynamo: bool, *, fast: bool = True) -> Any:
    """The ONNX model of a module, after its answers to other batches and lengths were compared."""
    axes = {"query": {0: "batch", 1: "queries"}, "key": {0: "batch", 1: "keys"}}
    graph = Graph(
        model="attention",
        module=module,
        inputs=tensors(BATCH, QUERIES, KEYS),
        outputs={"result": ("batch", "queries", HEADS * SIZE)},
        dynamic=axes | {"value": axes["key"]},
        cases=[],
        reference=lambda inputs, _: inputs,
        dynamo=dynamo,
        opset=18 if dynamo else 17,
    )
    path = path / "attention" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx_writing.write(graph, path, fast=fast)
    session = onnx_writing.load(path)
    for inputs in (tensors(3, 6, 9), tensors(1, 2, 4)):
        with torch.no_grad():
            (expected,) = module(*(torch.from_numpy(value) for value in inputs.values()))
        assert difference(run(session, inputs)["result"], expected.numpy()) < 1e-6
    return onnx.load(str(path))


def by_heads(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
    """As transformers calls PyTorch's own."""
    q, k, v = (
        tensor.reshape(*tensor.shape[:2], HEADS, SIZE).transpose(1, 2) for tensor in (query, key, value)
    )
    result: Tensor = functional.scaled_dot_product_attention(q, k, v, **options)
    return result.transpose(1, 2).flatten(2)


def causal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """As many queries as keys, each of which depends on all inputs."""
    hidden = query + value.mean(1, keepdim=True) + key.mean(1, keepdim=True)
    return by_heads(hidden, hidden, hidden, is_causal=True)


def masked(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """No query may look at the keys that begin with a large number."""
    mask = (key[:, :, 0] < 1).unsqueeze(1).expand(-1, query.shape[1], -1)
    # One that sees no key at all is not defined.
    mask = mask | (torch.arange(key.shape[1]) == 0)
    return by_heads(query, key, value, attn_mask=mask[:, None], scale=0.3)


def operators(model: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for node in model.graph.node:
        found.setdefault(node.op_type, []).append(node)
    return found


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize(
    "function",
    [
        by_heads,
        causal,
        masked,
        partial(attention.multi_head, heads=HEADS, scale=0.7),
    ],
    ids=["plain", "causal", "masked", "own"],
)
def test_one_operator_answers_as_pytorch(
    function: Callable[..., Tensor], dynamo: bool, tmp_path: Path
) -> None:
    model = written(tmp_path, Module(function), dynamo)
    found = operators(model)
    assert len(found["MultiHeadAttention"]) == 1
    assert "Softmax" not in found
    assert [opset.version for opset in model.opset_import if opset.domain == "com.microsoft"] == [1]


@pytest.mark.parametrize("dynamo", [True, False])
def test_the_plain_graph_has_no_operator_of_onnx_runtimes(dynamo: bool, tmp_path: Path) -> None:
    model = written(tmp_path, Module(partial(attention.multi_head, heads=HEADS)), dynamo, fast=False)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert len(operators(model)["Softmax"]) == 1


@pytest.mark.parametrize("dynamo", [True, False])
def test_a_layer_of_pytorchs_with_a_causal_mask(dynamo: bool, tmp_path: Path) -> None:
    layer = nn.MultiheadAttention(HEADS * SIZE, HEADS, batch_first=True).eval()
    nn.init.normal_(layer.in_proj_bias)

    def function(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        hidden = query + value.mean(1, keepdim=True) + key.mean(1, keepdim=True)
        mask = torch.full((query.shape[1], query.shape[1]), -torch.inf).triu(1)
        with attention.causal_masks():
            result: Tensor
            result, _ = layer(hidden, hidden, hidden, need_weights=False, attn_mask=mask)
        return result

    (node,) = operators(written(tmp_path, Module(function, layer), dynamo))["MultiHeadAttention"]
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    assert attributes["unidirectional"] == 1
    # The mask has gone: GPUs have no fast kernel for one.
    assert len(node.input) == 3


def test_what_pytorch_computes_meanwhile_is_as_ever() -> None:
    query, key, value = (torch.from_numpy(value) for value in tensors(BATCH, QUERIES, KEYS).values())
    expected = by_heads(query, key, value)
    with attention.fused():
        assert attention.is_fused()
        torch.testing.assert_close(by_heads(query, key, value), expected)
        torch.testing.assert_close(attention.multi_head(query, key, value, HEADS), expected)
    assert not attention.is_fused()


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("clip_image", 2),
        ("clip_text", 2),
        ("sam_encoder", 2),
        ("sam_decoder", 7),
        ("sam2_encoder", 5),
        ("sam2_decoder", 7),
    ],
)
def test_placed_graphs_have_all_their_attention_as_one_operator(
    tiny_repository: Path, name: str, count: int
) -> None:
    found = operators(onnx.load(str(tiny_repository / name / "1" / "model.onnx")))
    assert len(found["MultiHeadAttention"]) == count
    assert "Softmax" not in found
    # None has a bias: neither the causal mask of texts nor the relative positions of SAM's windows.
    assert {len(node.input) for node in found["MultiHeadAttention"]} == {3}

"""The rewritten layers against transformers' own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor
from transformers.models.grounding_dino import modeling_grounding_dino as modeling

from export import grounding_dino, onnx_writing, parity
from export.families.grounding_dino import tiny_config
from export.grounding_dino_attention import rewritten
from export.weights import randomise

from .conftest import TINY, Exported

SIZES = [(8, 6), (4, 3), (2, 2), (1, 1)]
PLACES = sum(height * width for height, width in SIZES)
BATCH, QUERIES, TOKENS, WIDTH = 3, 7, 5, 32


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        yield


def both(module: torch.nn.Module, *inputs: Any, **named: Any) -> tuple[Any, Any]:
    """Return what a layer with random weights answers as it is, and rewritten."""
    randomise(module.eval())
    expected = module(*inputs, **named)
    with rewritten():
        return expected, module(*inputs, **named)


def close(actual: Tensor, expected: Tensor) -> None:
    assert expected.std() > 1e-2
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("coordinates", [2, 4])
def test_deformable_attention(coordinates: int) -> None:
    """From points, as in the encoder, and from boxes, as in the decoder; some samples lie outside."""
    module = modeling.GroundingDinoMultiscaleDeformableAttention(tiny_config(), num_heads=4, n_points=3)
    mask = torch.rand(BATCH, PLACES) > 0.2
    expected, actual = both(
        module,
        hidden_states=torch.randn(BATCH, QUERIES, WIDTH),
        attention_mask=mask,
        encoder_hidden_states=torch.randn(BATCH, PLACES, WIDTH),
        reference_points=torch.rand(BATCH, QUERIES, len(SIZES), coordinates),
        spatial_shapes=torch.tensor(SIZES),
        spatial_shapes_list=SIZES,
    )
    close(actual[0], expected[0])


def test_attention_among_tokens_and_queries() -> None:
    module = modeling.GroundingDinoMultiheadAttention(tiny_config(), num_attention_heads=4)
    queries = torch.randn(BATCH, QUERIES, WIDTH)
    keys, values = torch.randn(2, BATCH, TOKENS, WIDTH)
    hidden = torch.rand(BATCH, 1, QUERIES, TOKENS) > 0.6
    hidden[..., 0] = False
    mask = hidden.expand(-1, 4, -1, -1).float() * torch.finfo(torch.float32).min
    expected, actual = both(module, queries, keys, values, attention_mask=mask)
    close(actual[0], expected[0])
    # Without a mask, as among the queries.
    free, actual = both(module, queries, keys, values)
    close(actual[0], free[0])
    assert not torch.allclose(free[0], expected[0], atol=1e-2)


def test_attention_between_image_and_text() -> None:
    module = modeling.GroundingDinoBiMultiHeadAttention(tiny_config())
    image, text = torch.randn(BATCH, PLACES, WIDTH), torch.randn(BATCH, TOKENS, WIDTH)
    image_padding, text_padding = torch.rand(BATCH, PLACES) > 0.7, torch.rand(BATCH, TOKENS) > 0.7
    text_padding[:, 0] = False
    expected, actual = both(
        module, image, text, vision_attention_mask=image_padding, text_attention_mask=text_padding
    )
    for way in range(2):
        close(actual[way][0], expected[way][0])


def test_transformers_is_left_as_it_was() -> None:
    owners: list[Any] = [
        modeling.MultiScaleDeformableAttention,
        modeling.GroundingDinoMultiheadAttention,
        modeling.GroundingDinoBiMultiHeadAttention,
        torch.nn.Linear,
    ]
    before = [owner.forward for owner in owners]
    with rewritten():
        assert all(owner.forward is not forward for owner, forward in zip(owners, before, strict=True))
    assert [owner.forward for owner in owners] == before


def test_attention_is_one_operator(tiny_grounding_dino: Exported) -> None:
    path = tiny_grounding_dino.repository / "grounding_dino" / "1" / "model.onnx"
    nodes = onnx.load(str(path)).graph.node
    fused = [node.name for node in nodes if node.op_type == "MultiHeadAttention"]
    config = tiny_grounding_dino.model.config
    text_layers = config.text_config.num_hidden_layers + config.encoder_layers
    assert len(fused) == sum(config.backbone_config.depths) + text_layers + 2 * config.decoder_layers
    # The other softmaxes are those of deformable attention, and of both ways between image and text.
    softmaxes = sum(node.op_type == "Softmax" for node in nodes)
    assert softmaxes == 3 * config.encoder_layers + config.decoder_layers
    # Rules of half precision go by PyTorch's module paths.
    assert any("/swin/" in name and "/attention/" in name for name in fused)


@pytest.mark.long
def test_the_plain_graph(tmp_path: Path) -> None:
    [graph] = grounding_dino.prepare(TINY).graphs
    path = tmp_path / "grounding_dino" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx_writing.write(graph, path, fast=False)
    assert {node.domain for node in onnx.load(str(path)).graph.node} == {""}
    parity.compare(graph, onnx_writing.load(path), 1e-4)

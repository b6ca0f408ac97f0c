import pytest
import torch
from torch import nn
from transformers.models.sam.configuration_sam import SamVisionConfig
from transformers.models.sam.modeling_sam import SamVisionLayer

from export import sam_attention


@pytest.mark.parametrize(
    ("height", "width", "window"), [(3, 3, 0), (5, 2, 0), (2, 7, 0), (6, 6, 3), (4, 7, 3), (2, 2, 3)]
)
@torch.no_grad()
def test_a_layer_equals_transformers(height: int, width: int, window: int) -> None:
    torch.manual_seed(0)
    config = SamVisionConfig(hidden_size=24, num_attention_heads=2, mlp_dim=32, image_size=48)
    config._attn_implementation = "sdpa"
    layer = SamVisionLayer(config, window).eval()
    # Rows and columns of other counts, which a swap of the two would show.
    attention = layer.attn
    attention.rel_pos_h = nn.Parameter(torch.zeros(2 * (window or height) - 1, 12))
    attention.rel_pos_w = nn.Parameter(torch.zeros(2 * (window or width) - 1, 12))
    # What pads a window projects to the bias.
    for parameter in (attention.rel_pos_h, attention.rel_pos_w, attention.qkv.bias):
        nn.init.normal_(parameter)
    hidden = torch.randn(2, height, width, 24)
    expected = layer(hidden)
    with sam_attention.rewritten():
        result = layer(hidden)
    # Its own forward again, and an answer to which the positions and the bias matter.
    torch.testing.assert_close(layer(hidden), expected, rtol=0, atol=0)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)
    for parameter in (attention.rel_pos_h, attention.qkv.bias):
        parameter.zero_()
        changed = layer(hidden)
        assert (changed - expected).abs().max() > 1e-2
        expected = changed

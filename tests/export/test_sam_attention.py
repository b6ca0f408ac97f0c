import pytest
import torch
from torch import nn
from transformers.models.sam.configuration_sam import SamVisionConfig
from transformers.models.sam.modeling_sam import SamVisionSdpaAttention

from export import sam_attention


@pytest.mark.parametrize(("height", "width"), [(3, 3), (5, 2), (2, 7)])
@torch.no_grad()
def test_it_equals_transformers(height: int, width: int) -> None:
    torch.manual_seed(0)
    config = SamVisionConfig(hidden_size=24, num_attention_heads=2, qkv_bias=True)
    module = SamVisionSdpaAttention(config, window_size=height).eval()
    # Rows and columns of other counts, which a swap of the two would show.
    module.rel_pos_w = nn.Parameter(torch.zeros(2 * width - 1, 12))
    for relative in (module.rel_pos_h, module.rel_pos_w):
        nn.init.normal_(relative)
    hidden = torch.randn(2, height, width, 24)
    expected, _ = module(hidden)
    with sam_attention.without_bias():
        result, _ = module(hidden)
    # Its own forward again, and an answer to which the positions matter.
    torch.testing.assert_close(module(hidden)[0], expected, rtol=0, atol=0)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)
    module.rel_pos_h.zero_()
    assert (module(hidden)[0] - expected).abs().max() > 1e-2

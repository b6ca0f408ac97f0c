"""Segment Anything: what can be exported, and the sizes of its variants."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from export.family import ExporterFamily, published
from export.weights import Variant


def _config(hidden_size: int, layers: int, heads: int, global_layers: Sequence[int]) -> Any:
    from transformers import SamConfig

    return SamConfig(
        vision_config={
            "hidden_size": hidden_size,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "global_attn_indexes": list(global_layers),
        }
    )


def _tiny_config() -> Any:
    from transformers import SamConfig

    return SamConfig(
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "global_attn_indexes": [1],
            "window_size": 3,
            "image_size": 128,
            "output_channels": 32,
            "num_pos_feats": 16,
        },
        prompt_encoder_config={"hidden_size": 32, "image_size": 128},
        mask_decoder_config={
            "hidden_size": 32,
            "mlp_dim": 64,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 32,
        },
    )


def _demo_config() -> Any:
    """Return the sizes that `export.demo.train_sam` trains."""
    from transformers import SamConfig

    return SamConfig(
        vision_config={
            "hidden_size": 96,
            "num_hidden_layers": 4,
            "num_attention_heads": 3,
            "global_attn_indexes": [1, 3],
            "window_size": 5,
            "image_size": 160,
            "patch_size": 8,
            "output_channels": 64,
            "num_pos_feats": 32,
        },
        prompt_encoder_config={"hidden_size": 64, "image_size": 160, "patch_size": 8},
        mask_decoder_config={
            "hidden_size": 64,
            "mlp_dim": 128,
            "num_attention_heads": 4,
            "iou_head_hidden_dim": 64,
        },
    )


VARIANTS = {
    "vit_b": Variant("facebook/sam-vit-base", partial(_config, 768, 12, 12, (2, 5, 8, 11)), {}),
    "vit_l": Variant("facebook/sam-vit-large", partial(_config, 1024, 24, 16, (5, 11, 17, 23)), {}),
    "vit_h": Variant("facebook/sam-vit-huge", partial(_config, 1280, 32, 16, (7, 15, 23, 31)), {}),
    "tiny": Variant(None, _tiny_config, {}),
    "demo": Variant(None, _demo_config, {}),
}

FAMILY = ExporterFamily(
    name="sam",
    variants=published(VARIANTS),
    weights="hub, or a folder of the same layout",
    licence="Apache-2.0",
    module="export.sam",
)

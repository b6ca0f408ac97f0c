"""SAM 2.1 on images: what can be exported, and the sizes of its variants."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from export.family import ExporterFamily, published
from export.weights import Variant


def _config(
    hidden_size: int,
    heads: int,
    blocks: Sequence[int],
    global_blocks: Sequence[int],
    windows: Sequence[int] = (8, 4, 14, 7),
    background: int = 7,
) -> Any:
    from transformers import Sam2Config

    widths = [hidden_size * 2**stage for stage in range(4)]
    return Sam2Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": hidden_size,
                "num_attention_heads": heads,
                "embed_dim_per_stage": widths,
                "num_attention_heads_per_stage": [heads * 2**stage for stage in range(4)],
                "blocks_per_stage": list(blocks),
                "global_attention_blocks": list(global_blocks),
                "window_size_per_stage": list(windows),
                "window_positional_embedding_background_size": [background, background],
            },
            "backbone_channel_list": widths[::-1],
        }
    )


def _tiny_config() -> Any:
    from transformers import Sam2Config

    return Sam2Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": 16,
                "image_size": [128, 128],
                "embed_dim_per_stage": [16, 32, 64, 128],
                "num_attention_heads_per_stage": [1, 2, 2, 4],
                "blocks_per_stage": [1, 1, 2, 1],
                "global_attention_blocks": [3],
                # 6 does not divide the 8 cells of its stage: windows with padding, as in the real ones.
                "window_size_per_stage": [8, 4, 6, 4],
                "window_positional_embedding_background_size": [4, 4],
            },
            "backbone_channel_list": [128, 64, 32, 16],
            "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
            "fpn_hidden_size": 32,
        },
        prompt_encoder_config={"hidden_size": 32, "image_size": 128},
        mask_decoder_config={
            "hidden_size": 32,
            "mlp_dim": 64,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 32,
        },
    )


VARIANTS = {
    "hiera_tiny": Variant("facebook/sam2.1-hiera-tiny", partial(_config, 96, 1, (1, 2, 7, 2), (5, 7, 9)), {}),
    "hiera_small": Variant(
        "facebook/sam2.1-hiera-small", partial(_config, 96, 1, (1, 2, 11, 2), (7, 10, 13)), {}
    ),
    "hiera_base_plus": Variant(
        "facebook/sam2.1-hiera-base-plus",
        partial(_config, 112, 2, (2, 3, 16, 3), (12, 16, 20), background=14),
        {},
    ),
    "hiera_large": Variant(
        "facebook/sam2.1-hiera-large",
        partial(_config, 144, 2, (2, 6, 36, 4), (23, 33, 43), windows=(8, 4, 16, 8)),
        {},
    ),
    # Its name for requests is not "tiny": a repository may also hold SAM's toy, which has that name.
    "tiny": Variant(None, _tiny_config, {"variant": "hiera_toy"}),
}

FAMILY = ExporterFamily(
    name="sam2",
    variants=published(VARIANTS),
    weights="hub, or a folder of the same layout",
    licence="Apache-2.0",
    module="export.sam2",
    alternative_of="sam",
)

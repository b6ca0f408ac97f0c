"""Grounding DINO: what can be exported, and the sizes of its variants."""

from functools import partial
from typing import Any

from export import bert_tokenizer
from export.family import ExporterFamily, published
from export.weights import Variant

# Image sizes of transformers' processor, and the canvases (height x width) that batches are padded to.
# Sides are multiples of 32 pixels. The shorter side must be longer than 32 pixels times the window of the
# Swin backbone (224 pixels for Swin-T). Otherwise transformers' layers drop their shifted windows for good.
SIZES = {
    "shortest_edge": "800",
    "longest_edge": "1333",
    "canvases": "800x800,800x1088,800x1216,800x1344,1088x800,1216x800,1344x800",
    "text_lengths": "16,32,64,128,256",
}
# The thresholds of the authors' examples. Several of the queries that find one object pass the first of
# them, so non-maximum suppression follows.
THRESHOLDS = {"box_threshold": "0.35", "text_threshold": "0.25", "nms_iou_threshold": "0.8"}
TINY_SIZES = {
    "shortest_edge": "128",
    "longest_edge": "224",
    "canvases": "128x128,128x192,128x224,192x128,224x128",
    "text_lengths": "16,32,64,128,256",
}
DEMO_SIZES = {
    "shortest_edge": "160",
    "longest_edge": "160",
    "canvases": "160x160,128x160,160x128",
    "text_lengths": "16,32,64,128,256",
}
# The demo model scores below 0.5 what has only the right colour or only the right shape.
DEMO_THRESHOLDS = {"box_threshold": "0.5", "nms_iou_threshold": "0.5"}


def _config(**swin: Any) -> Any:
    from transformers import GroundingDinoConfig

    return GroundingDinoConfig(backbone_config={"model_type": "swin", "out_indices": [2, 3, 4], **swin})


def tiny_config(vocabulary_size: int = 2048) -> Any:
    """Return the sizes of the toy, for a vocabulary of this many tokens."""
    from transformers import GroundingDinoConfig

    return GroundingDinoConfig(
        backbone_config={
            "model_type": "swin",
            "out_indices": [2, 3, 4],
            "embed_dim": 16,
            "depths": [2, 2, 2, 2],
            "num_heads": [1, 2, 4, 8],
            "window_size": 3,
        },
        text_config={
            "model_type": "bert",
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "vocab_size": vocabulary_size,
        },
        d_model=32,
        num_queries=40,
        encoder_layers=2,
        encoder_ffn_dim=64,
        encoder_attention_heads=4,
        decoder_layers=2,
        decoder_ffn_dim=64,
        decoder_attention_heads=4,
    )


def _demo_config() -> Any:
    """Return the sizes that `export.demo.train_grounding_dino` trains."""
    from transformers import GroundingDinoConfig

    return GroundingDinoConfig(
        backbone_config={
            "model_type": "swin",
            # Strides 8 and 16. Windows of 5 x 5 fill the canvas of 160 without padding.
            "out_indices": [2, 3],
            "embed_dim": 32,
            "depths": [1, 1, 2],
            "num_heads": [1, 2, 4],
            "window_size": 5,
            "drop_path_rate": 0.0,
        },
        text_config={
            "model_type": "bert",
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 128,
            "vocab_size": len(bert_tokenizer.own_vocabulary()),
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        d_model=64,
        num_queries=100,
        num_feature_levels=3,
        encoder_layers=2,
        encoder_ffn_dim=128,
        encoder_attention_heads=4,
        decoder_layers=2,
        decoder_ffn_dim=128,
        decoder_attention_heads=4,
        dropout=0.0,
        fusion_droppath=0.0,
        fusion_dropout=0.0,
        text_enhancer_dropout=0.0,
    )


VARIANTS = {
    "swin_t": Variant("IDEA-Research/grounding-dino-tiny", _config, SIZES | THRESHOLDS),
    "swin_b": Variant(
        "IDEA-Research/grounding-dino-base",
        partial(
            _config,
            embed_dim=128,
            depths=[2, 2, 18, 2],
            num_heads=[4, 8, 16, 32],
            window_size=12,
            image_size=384,
        ),
        SIZES | THRESHOLDS,
    ),
    "tiny": Variant(None, tiny_config, TINY_SIZES),
    "demo": Variant(None, _demo_config, DEMO_SIZES | DEMO_THRESHOLDS),
}

FAMILY = ExporterFamily(
    name="grounding_dino",
    variants=published(VARIANTS),
    weights="hub, or a folder of the same layout",
    licence="Apache-2.0",
    module="export.grounding_dino",
)

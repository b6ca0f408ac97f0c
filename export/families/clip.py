"""CLIP through open_clip: what can be exported, and the sizes of its variants."""

from collections.abc import Mapping
from typing import Any

from export.family import ExporterFamily

# OpenAI's nine models, by the names that requests use. All others have open_clip's names, NAME or NAME:TAG.
VARIANTS = {
    "vit_b_32": "ViT-B-32",
    "vit_b_16": "ViT-B-16",
    "vit_l_14": "ViT-L-14",
    "vit_l_14_336": "ViT-L-14-336",
    "rn50": "RN50",
    "rn101": "RN101",
    "rn50x4": "RN50x4",
    "rn50x16": "RN50x16",
    "rn50x64": "RN50x64",
}
TINY: Mapping[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 64, "head_width": 32, "layers": 2},
    "text_cfg": {"context_length": 77, "vocab_size": 49_408, "width": 64, "heads": 2, "layers": 2},
    "quick_gelu": True,
}
# The demo model has a vocabulary of its own with this many merges. The file lies beside its weights.
DEMO_MERGES = 400
DEMO_VOCABULARY = "vocabulary.txt.gz"
DEMO: Mapping[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {
        "image_size": 64,
        "layers": [1, 1, 1, 1],
        "width": 10,
        "patch_size": None,
        "head_width": 32,
    },
    "text_cfg": {
        "context_length": 32,
        "vocab_size": 512 + DEMO_MERGES + 2,
        "width": 64,
        "heads": 2,
        "layers": 2,
    },
}

FAMILY = ExporterFamily(
    name="clip",
    variants=tuple(VARIANTS),
    other_variants="any other open_clip model as NAME:TAG, such as ViT-B-32:laion2b_s34b_b79k",
    weights="hub, or a file of open_clip's (.safetensors, .pt)",
    licence="MIT (open_clip's code and OpenAI's weights; other tags have terms of their own)",
    module="export.clip",
    can_be_int8=True,
)

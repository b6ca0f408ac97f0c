"""CLIP through open_clip: the image tower and the text tower as two graphs, and the tokenizer's file."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from export import attention, clip_gate, clip_tokenizer, weights
from export.clip_weights import build
from export.errors import ExportError
from export.families.clip import DEMO_MERGES, DEMO_VOCABULARY, FAMILY
from export.graph import Arrays, Export, Graph
from export.measures import cosine
from export.photos import pictures
from export.pictures import noise
from export.pixels import Normalise
from export.weights import Options


def prepare(options: Options) -> Export:
    """Describe both graphs, with the reference that each must agree with."""
    return describe(*build(options))


def describe(model: Any, variant: str) -> Export:
    """Describe both graphs of a model of open_clip's, or of the demo model."""
    vocabulary, merges = clip_tokenizer.own_vocabulary(), clip_tokenizer.MERGES
    if variant == "demo":
        vocabulary, merges = weights.demo_weights(FAMILY.name) / DEMO_VOCABULARY, DEMO_MERGES
    tokenizer = clip_tokenizer.from_vocabulary(vocabulary, merges)
    names = {"family": FAMILY.name, "variant": variant}
    return Export(
        [_image(model, names, vocabulary), _text(model, names, vocabulary)],
        {"clip_text/tokenizer.json": tokenizer.to_str()},
    )


class ImageTower(nn.Module):
    """RGB bytes, NHWC, to embeddings that are not normalised."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        preprocess = model.visual.preprocess_cfg
        self.visual = model.visual
        self.normalise = Normalise(preprocess["mean"], preprocess["std"])

    def forward(self, image: Tensor) -> tuple[Tensor]:
        return (self.visual(self.normalise(image)),)


class TextTower(nn.Module):
    """Token ids to embeddings that are not normalised."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        mask = getattr(getattr(model, "text", model), "attn_mask", None)
        self.is_causal = mask is not None and torch.equal(mask, torch.full_like(mask, -torch.inf).triu(1))

    def forward(self, input_ids: Tensor) -> tuple[Tensor]:
        with attention.causal_masks() if self.is_causal else nullcontext():
            # The model finds the end of the text with ArgMax, which ONNX Runtime before 1.20 lacks for int64.
            return (self.model.encode_text(input_ids.to(torch.int32)),)


def _image(model: Any, names: Mapping[str, str], vocabulary: Path) -> Graph:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    preprocess = model.visual.preprocess_cfg
    transform = image_transform_v2(PreprocessCfg(**preprocess), is_train=False)
    size = preprocess["size"]
    if isinstance(size, tuple | list):
        size, *others = size
        if others and others != [size]:
            raise ExportError(
                f"The model's images are {preprocess['size']} pixels: only squares can be exported."
            )

    def case(seed: int, batch: int) -> Arrays:
        return {"image": noise(seed, batch, size, size)}

    @torch.no_grad()
    def reference(inputs: Arrays, _outputs: Arrays) -> Arrays:
        pixels = torch.stack([transform(Image.fromarray(image)) for image in inputs["image"]])
        return {"image_embedding": model.encode_image(pixels).numpy()}

    example = case(0, 2)
    width = reference(example, {})["image_embedding"].shape[1]
    return Graph(
        model="clip_image",
        module=ImageTower(model),
        inputs=example,
        outputs={"image_embedding": ("batch", width)},
        dynamic={"image": {0: "batch"}},
        cases=[case(1, 1), case(2, 3)],
        reference=reference,
        measures=[cosine("image_embedding")],
        photos=lambda: [{"image": picture[None]} for picture in pictures(size, size)],
        int8_gate=lambda: clip_gate.image_gate(model, _tokenizer(model, vocabulary)),
        warmup=[{"image": np.zeros((1, size, size, 3), np.uint8)}],
        parameters={
            **names,
            "image_size": str(size),
            "resize_mode": preprocess["resize_mode"],
            "interpolation": preprocess["interpolation"],
            "fill_color": str(preprocess["fill_color"]),
            "embedding_size": str(width),
        },
    )


def _text(model: Any, names: Mapping[str, str], vocabulary: Path) -> Graph:
    length = model.context_length
    tokenizer = _tokenizer(model, vocabulary)

    def case(*texts: str) -> Arrays:
        return {"input_ids": tokenizer(list(texts)).numpy()}

    @torch.no_grad()
    def reference(inputs: Arrays, _outputs: Arrays) -> Arrays:
        return {"text_embedding": model.encode_text(torch.from_numpy(inputs["input_ids"])).numpy()}

    example = case("a photo of a cat.", "two dogs on a red sofa")
    width = reference(example, {})["text_embedding"].shape[1]
    return Graph(
        model="clip_text",
        module=TextTower(model),
        inputs=example,
        outputs={"text_embedding": ("batch", width)},
        dynamic={"input_ids": {0: "batch"}},
        # The embedding is taken at the end of the text: at the front, in the middle, in the very last place.
        cases=[case("?"), case("a photo of a truck.", "words " * 100, "an astronaut, smiling, 1983")],
        reference=reference,
        measures=[cosine("text_embedding")],
        int8_gate=lambda: clip_gate.text_gate(model, tokenizer),
        warmup=[case("a photo of a cat.")],
        parameters={
            **names,
            "context_length": str(length),
            "logit_scale": f"{model.logit_scale.exp().item():.6g}",
            "embedding_size": str(width),
        },
    )


def _tokenizer(model: Any, vocabulary: Path) -> Any:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(str(vocabulary), context_length=model.context_length)

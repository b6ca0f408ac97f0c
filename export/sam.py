"""Segment Anything: the image encoder and the prompt decoder as two graphs."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from export import sam_attention
from export.families.sam import FAMILY, VARIANTS
from export.graph import Arrays, Export, Graph
from export.photos import pictures
from export.pictures import noise_images
from export.pixels import NormaliseValid, normalised
from export.sam_decoder import (
    MULTIMASKS,
    PromptDecoder,
    ask_each_prompt,
    decoder_graph,
    least_iou,
    mask_measure,
    random_prompts,
)
from export.weights import Options, load


def build(options: Options) -> tuple[Any, str]:
    """Return transformers' own SamModel, whose weights `prepare` exports, and the variant's name."""
    from transformers import SamModel

    def is_same(config: Any, other: Any) -> bool:
        fields = ("hidden_size", "num_hidden_layers", "image_size")
        return all(getattr(config.vision_config, f) == getattr(other.vision_config, f) for f in fields)

    return load(SamModel, VARIANTS, is_same, options)


def prepare(options: Options) -> Export:
    """Describe both graphs, with the reference that each must agree with."""
    model, variant = build(options)
    size = model.config.vision_config.image_size
    parameters = {"family": FAMILY.name, "variant": variant, "image_size": str(size)}
    min_iou = least_iou(options.weights)
    return Export([_encoder(model, parameters, min_iou), _decoder(model, parameters, min_iou)])


class Encoder(nn.Module):
    """Pixels to image embedding."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.normalise = NormaliseValid()
        self.vision_encoder = model.vision_encoder

    def forward(self, image: Tensor, valid_size: Tensor) -> tuple[Tensor]:
        pixels, _ = self.normalise(image, valid_size)
        with sam_attention.rewritten():
            return (self.vision_encoder(pixels).last_hidden_state,)


class Decoder(PromptDecoder):
    """Image embedding and prompts to masks: that of the single-mask token and the three multimask ones."""

    def forward(
        self,
        image_embedding: Tensor,
        points: Tensor,
        labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, ...]:
        image, sparse = self.embed(image_embedding, points, labels, mask_input, has_mask_input)
        masks, iou = self.decode(image, sparse)
        batch, prompts, _ = labels.shape
        masks = masks.reshape(batch, prompts, MULTIMASKS + 1, *masks.shape[-2:])
        iou = iou.reshape(batch, prompts, MULTIMASKS + 1)
        return masks[:, :, 0], iou[:, :, 0], masks[:, :, 1:], iou[:, :, 1:]

    def decode(self, image: Tensor, sparse: Tensor) -> tuple[Tensor, Tensor]:
        """Return masks [n,4,m,m] and predicted IoUs [n,4] of n image embeddings with a prompt each."""
        decoder = self.mask_decoder
        tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens, pixels = self.transform(tokens, image, sparse)
        pixels = decoder.activation(decoder.upscale_layer_norm(decoder.upscale_conv1(pixels)))
        pixels = decoder.activation(decoder.upscale_conv2(pixels))
        return self.draw_masks(tokens[:, 1:], pixels), decoder.iou_prediction_head(tokens[:, 0])


def _photos(size: int) -> list[Arrays]:
    valid = np.full((1, 2), size, np.int32)
    return [{"image": picture[None], "valid_size": valid} for picture in pictures(size, size)]


@torch.no_grad()
def encoder_reference(model: Any, inputs: Arrays, _outputs: Arrays) -> Arrays:
    """Return the embeddings of transformers' SamModel."""
    pixels, _ = normalised(inputs["image"], inputs["valid_size"])
    # One by one: each image takes gigabytes.
    embeddings = [model.get_image_embeddings(image[None]) for image in pixels]
    return {"image_embedding": torch.cat(embeddings).numpy()}


def _encoder(model: Any, parameters: dict[str, str], min_iou: float) -> Graph:
    vision = model.config.vision_config
    size, grid = vision.image_size, vision.image_size // vision.patch_size

    def case(seed: int, *valid: tuple[int, int]) -> Arrays:
        return noise_images(seed, size, size, valid)

    example = case(0, (size, size), (size - 9, size))
    return Graph(
        model="sam_encoder",
        module=Encoder(model),
        inputs=example,
        outputs={"image_embedding": ("batch", vision.output_channels, grid, grid)},
        dynamic={"image": {0: "batch"}, "valid_size": {0: "batch"}},
        cases=[case(1, (size, size // 2 + 3)), case(2, (size // 3, size), (size, size))],
        reference=partial(encoder_reference, model),
        measures=[
            mask_measure(model, lambda outputs: torch.from_numpy(outputs["image_embedding"]), size, min_iou)
        ],
        photos=lambda: _photos(size),
        warmup=[
            {
                "image": np.zeros((1, size, size, 3), np.uint8),
                "valid_size": np.full((1, 2), size, np.int32),
            }
        ],
        parameters=parameters,
    )


def _decoder(model: Any, parameters: dict[str, str], min_iou: float) -> Graph:
    vision = model.config.vision_config
    size, grid = vision.image_size, vision.image_size // vision.patch_size

    def case(seed: int, batch: int, labels: Sequence[int], prompts: int, masks: int) -> Arrays:
        random = np.random.default_rng(seed)
        embedding = random.normal(size=(batch, vision.output_channels, grid, grid)).astype(np.float32)
        sizes = {"image_size": size, "mask_size": 4 * grid}
        return {"image_embedding": embedding} | random_prompts(
            random, labels, batch=batch, prompts=prompts, masks=masks, **sizes
        )

    def encode() -> Arrays:
        found = [encoder_reference(model, photo, {})["image_embedding"] for photo in _photos(size)]
        return {"image_embedding": np.concatenate(found)} if found else {}

    return decoder_graph(
        "sam_decoder",
        Decoder(model),
        case,
        partial(decoder_reference, model),
        mask_size=4 * grid,
        box_padding=(),
        parameters=parameters,
        encode=encode,
        min_iou=min_iou,
    )


def decoder_reference(model: Any, inputs: Arrays, _outputs: Arrays) -> Arrays:
    """Return what transformers' SamModel answers to the same prompts."""
    return ask_each_prompt(model, inputs, lambda image: torch.from_numpy(inputs["image_embedding"][[image]]))

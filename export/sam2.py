"""SAM 2.1 on images: the Hiera image encoder and the prompt decoder as two graphs.

The decoder is SAM's with three differences. Two finer feature maps of the encoder are added while the masks
grow. A token tells whether there is an object at all; single images have no use for it. A single mask that is
not stable gives way to the best of the three.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from export.families.sam2 import FAMILY, VARIANTS
from export.graph import Arrays, Export, Graph
from export.photos import pictures
from export.pictures import noise
from export.pixels import Normalise, normalised
from export.sam_decoder import (
    MULTIMASKS,
    PADDING,
    PromptDecoder,
    ask_each_prompt,
    decoder_graph,
    least_iou,
    mask_measure,
    random_prompts,
)
from export.weights import Options, load

# Outputs of the encoder, and inputs of the decoder by the same names. A cell is 4 or 8 pixels of the image.
FEATURES = ("features_s4", "features_s8")


def build(options: Options) -> tuple[Any, str]:
    """Return transformers' own Sam2Model, whose weights `prepare` exports, and the variant's name."""
    from transformers import Sam2Model

    def is_same(config: Any, other: Any) -> bool:
        return sizes(config.vision_config.backbone_config) == sizes(other.vision_config.backbone_config)

    def sizes(backbone: Any) -> list[Any]:
        values = (getattr(backbone, name) for name in ("hidden_size", "blocks_per_stage", "image_size"))
        # Configurations have lists or tuples, whichever they were made of.
        return [list(value) if isinstance(value, tuple | list) else value for value in values]

    # The official repositories hold the video model. Its parts for single images are this model.
    return load(Sam2Model, VARIANTS, is_same, options, relatives=("sam2_video",))


def prepare(options: Options) -> Export:
    """Describe both graphs, with the reference that each must agree with."""
    model, variant = build(options)
    parameters = {
        "family": FAMILY.name,
        "variant": variant,
        "image_size": str(model.prompt_encoder.input_image_size),
        "fit": "stretch",
        "padding_point": "always",
        **VARIANTS[variant].parameters,
    }
    min_iou = least_iou(options.weights)
    return Export([_encoder(model, parameters, min_iou), _decoder(model, parameters, min_iou)])


class Encoder(nn.Module):
    """Pixels to image embedding and two finer feature maps."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.backbone = model.vision_encoder.backbone
        self.neck = model.vision_encoder.neck
        self.levels = model.vision_encoder.num_feature_levels
        self.conv_s4, self.conv_s8 = model.mask_decoder.conv_s0, model.mask_decoder.conv_s1
        cells = [side // 4 for side in self.backbone.config.image_size]
        with torch.no_grad():
            # Resized from a small grid once here: every runtime would do its bicubic resize in its own way.
            self.register_buffer("positions", self.backbone._get_pos_embed(cells))
            self.register_buffer("no_memory", model.no_memory_embedding.reshape(1, -1, 1, 1).clone())

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        hidden = self.backbone.patch_embed(self.normalise(image)) + self.positions
        stages = []
        for index, block in enumerate(self.backbone.blocks):
            hidden = block(hidden)
            if index in self.backbone.stage_ends:
                stages.append(hidden)
        maps, _ = self.neck(stages)
        embedding, s8, s4 = maps[-self.levels :]
        return embedding + self.no_memory, self.conv_s4(s4), self.conv_s8(s8)


class Decoder(PromptDecoder):
    """Image embedding, features and prompts to masks: the single one, and the three multimask ones."""

    def forward(
        self,
        image_embedding: Tensor,
        features_s4: Tensor,
        features_s8: Tensor,
        points: Tensor,
        labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, ...]:
        batch, prompts, _ = labels.shape
        image, sparse = self.embed(image_embedding, points, labels, mask_input, has_mask_input)
        decoder = self.mask_decoder
        tokens = torch.cat(
            [decoder.obj_score_token.weight, decoder.iou_token.weight, decoder.mask_tokens.weight]
        )
        tokens, pixels = self.transform(tokens, image, sparse)

        def add(grown: Tensor, features: Tensor) -> Tensor:
            # The features of an image go to all of its prompts, without a copy for each.
            whole = grown.reshape(batch, prompts, *grown.shape[1:]) + features[:, None]
            return whole.flatten(0, 1)

        pixels = add(decoder.upscale_conv1(pixels), features_s8)
        pixels = decoder.activation(decoder.upscale_layer_norm(pixels))
        pixels = decoder.activation(add(decoder.upscale_conv2(pixels), features_s4))
        masks = self.draw_masks(tokens[:, 2:], pixels)
        masks = masks.reshape(batch, prompts, MULTIMASKS + 1, *masks.shape[-2:])
        iou = decoder.iou_prediction_head(tokens[:, 1]).reshape(batch, prompts, MULTIMASKS + 1)
        single, single_iou = masks[:, :, :1], iou[:, :, :1]
        if decoder.dynamic_multimask_via_stability:
            single, single_iou = decoder._dynamic_multimask_via_stability(masks, iou)
        return single[:, :, 0], single_iou[:, :, 0], masks[:, :, 1:], iou[:, :, 1:]

    def point_kinds(self) -> list[Tensor]:
        return list(self.prompt_encoder.point_embed.weight)


@torch.no_grad()
def encoder_reference(model: Any, inputs: Arrays, _outputs: Arrays) -> Arrays:
    """Return the embeddings and features of transformers' Sam2Model."""
    size = model.prompt_encoder.input_image_size
    pixels, _ = normalised(inputs["image"], np.full((len(inputs["image"]), 2), size))
    embeddings = [model.get_image_embeddings(image[None]) for image in pixels]
    maps = [torch.cat(level).numpy() for level in zip(*embeddings, strict=True)]
    return dict(zip((*FEATURES, "image_embedding"), maps, strict=True))


def _embeddings(maps: Arrays) -> list[Tensor]:
    return [torch.from_numpy(maps[name]) for name in (*FEATURES, "image_embedding")]


def _encoder(model: Any, parameters: dict[str, str], min_iou: float) -> Graph:
    size = model.prompt_encoder.input_image_size

    def case(seed: int, count: int) -> Arrays:
        return {"image": noise(seed, count, size, size)}

    example = case(0, 2)
    return Graph(
        model="sam2_encoder",
        module=Encoder(model),
        inputs=example,
        outputs={name: ("batch", *shape) for name, shape in _map_shapes(model).items()},
        dynamic={"image": {0: "batch"}},
        cases=[case(1, 1), case(2, 3)],
        reference=partial(encoder_reference, model),
        measures=[mask_measure(model, _embeddings, size, min_iou)],
        photos=lambda: [{"image": picture[None]} for picture in pictures(size, size)],
        warmup=[{"image": np.zeros((1, size, size, 3), np.uint8)}],
        parameters=parameters,
        # Both exporters can do it. torch.export takes four times as long over the many windows.
        dynamo=False,
        opset=17,
    )


def _map_shapes(model: Any) -> dict[str, tuple[int, int, int]]:
    """Return channels, rows and columns of each map that the encoder gives the decoder."""
    channels = model.config.vision_config.fpn_hidden_size
    grid = model.prompt_encoder.image_embedding_size[0]
    return {
        "image_embedding": (channels, grid, grid),
        "features_s4": (channels // 8, 4 * grid, 4 * grid),
        "features_s8": (channels // 4, 2 * grid, 2 * grid),
    }


def _decoder(model: Any, parameters: dict[str, str], min_iou: float) -> Graph:
    size, grid = model.prompt_encoder.input_image_size, model.prompt_encoder.image_embedding_size[0]

    def case(seed: int, batch: int, labels: Sequence[int], prompts: int, masks: int) -> Arrays:
        random = np.random.default_rng(seed)
        sizes = {"image_size": size, "mask_size": 4 * grid}
        inputs = random_prompts(random, labels, batch=batch, prompts=prompts, masks=masks, **sizes)
        maps = {name: random.normal(size=(batch, *shape)) for name, shape in _map_shapes(model).items()}
        # The masks of every other image are clear, so that the single one is stable: both ways are compared.
        maps["features_s4"][1::2] = np.abs(maps["features_s4"][1::2]) * 100
        return {name: value.astype(np.float32) for name, value in maps.items()} | inputs

    def encode() -> Arrays:
        photos = pictures(size, size)
        return encoder_reference(model, {"image": np.stack(photos)}, {}) if photos else {}

    return decoder_graph(
        "sam2_decoder",
        Decoder(model),
        case,
        partial(decoder_reference, model),
        mask_size=4 * grid,
        box_padding=(PADDING,),
        parameters=parameters,
        encode=encode,
        min_iou=min_iou,
    )


def decoder_reference(model: Any, inputs: Arrays, _outputs: Arrays) -> Arrays:
    """Return what transformers' Sam2Model answers to the same prompts."""

    def embeddings(image: int) -> list[Tensor]:
        return [torch.from_numpy(inputs[name][[image]]) for name in (*FEATURES, "image_embedding")]

    return ask_each_prompt(model, inputs, embeddings)

"""SAM 2.1 on images: the Hiera image encoder and the prompt decoder as two graphs.

The decoder is SAM's with three differences: two finer feature maps of the encoder are added while masks
grow, a token tells whether there is an object at all (which single images have no use for), and a single
mask that is not stable gives way to the best of the three.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from export import sam
from export.graph import Arrays, Export, Graph
from export.pixels import Normalise, noise_images, normalised
from export.sam import MULTIMASKS
from export.weights import Options, Variant, load

# Encoder outputs, and decoder inputs of the same names: 4 and 8 pixels of the image a cell.
FEATURES = ("features_s4", "features_s8")


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
    # Not "tiny": it stands beside SAM's toy, and requests tell them apart by name.
    "tiny": Variant(None, _tiny_config, {"variant": "hiera_toy"}),
}


def build(options: Options) -> tuple[Any, str]:
    """Return transformers' own Sam2Model, whose weights `prepare` exports, and the variant's name."""
    from transformers import Sam2Model

    def is_same(one: Any, other: Any) -> bool:
        fields = ("hidden_size", "blocks_per_stage", "image_size")
        backbones = one.vision_config.backbone_config, other.vision_config.backbone_config
        return all(len({str(list_or_number(backbone, f)) for backbone in backbones}) == 1 for f in fields)

    def list_or_number(backbone: Any, name: str) -> Any:
        value = getattr(backbone, name)
        return list(value) if isinstance(value, tuple | list) else value

    # The official repositories hold the video model, whose parts for single images are this one.
    return load(Sam2Model, VARIANTS, is_same, options, relatives=("sam2_video",))


def prepare(options: Options) -> Export:
    """Describe both graphs, with the reference that each must agree with."""
    model, variant = build(options)
    parameters = {
        "family": "sam2",
        "variant": variant,
        "image_size": str(model.prompt_encoder.input_image_size),
        "fit": "stretch",
        "padding_point": "always",
        **VARIANTS[variant].parameters,
    }
    return Export([_encoder(model, parameters), _decoder(model, parameters)])


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
            # Bicubic from a small grid: once, here, and not by every runtime in its own way.
            self.register_buffer("positions", self.backbone._get_pos_embed(cells))
            self.register_buffer("no_memory", model.no_memory_embedding.reshape(1, -1, 1, 1).clone())

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        hidden = self.backbone.patch_embed(self.normalise.everywhere(image)) + self.positions
        stages = []
        for index, block in enumerate(self.backbone.blocks):
            hidden = block(hidden)
            if index in self.backbone.stage_ends:
                stages.append(hidden)
        maps, _ = self.neck(stages)
        embedding, s8, s4 = maps[-self.levels :]
        return embedding + self.no_memory, self.conv_s4(s4), self.conv_s8(s8)


class Decoder(sam.Decoder):
    """Image embedding, features and prompts to masks: the single one, and the three multimask ones."""

    def forward(  # type: ignore[override]
        self,
        image_embedding: Tensor,
        features_s4: Tensor,
        features_s8: Tensor,
        points: Tensor,
        labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, ...]:
        batch, prompts, count = labels.shape
        sparse = self.embed_points(points, labels).reshape(batch * prompts, 1, count, -1)
        image = image_embedding[:, None] + self.embed_masks(mask_input, has_mask_input)
        image = image.expand(-1, prompts, -1, -1, -1).flatten(0, 1)

        decoder = self.mask_decoder
        tokens = torch.cat(
            [decoder.obj_score_token.weight, decoder.iou_token.weight, decoder.mask_tokens.weight]
        )
        tokens = tokens.expand(image.shape[0], 1, -1, -1)
        tokens, pixels = decoder.transformer(
            point_embeddings=torch.cat([tokens, sparse], dim=2),
            image_embeddings=image,
            image_positional_embeddings=self.image_positions,
            attention_similarity=None,
        )
        pixels = pixels[:, 0].transpose(1, 2).reshape(image.shape)

        def add(grown: Tensor, features: Tensor) -> Tensor:
            # The features of an image go to all of its prompts, without a copy for each.
            whole = grown.reshape(batch, prompts, *grown.shape[1:]) + features[:, None]
            return whole.flatten(0, 1)

        pixels = add(decoder.upscale_conv1(pixels), features_s8)
        pixels = decoder.activation(decoder.upscale_layer_norm(pixels))
        pixels = decoder.activation(add(decoder.upscale_conv2(pixels), features_s4))
        kernels = torch.stack(
            [mlp(tokens[:, 0, 2 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)], dim=1
        )
        masks = (kernels @ pixels.flatten(2)).reshape(batch, prompts, MULTIMASKS + 1, *pixels.shape[-2:])
        iou = decoder.iou_prediction_head(tokens[:, 0, 1]).reshape(batch, prompts, MULTIMASKS + 1)
        single, single_iou = masks[:, :, :1], iou[:, :, :1]
        if decoder.dynamic_multimask_via_stability:
            single, single_iou = decoder._dynamic_multimask_via_stability(masks, iou)
        return single[:, :, 0], single_iou[:, :, 0], masks[:, :, 1:], iou[:, :, 1:]

    def point_kinds(self) -> list[Tensor]:
        return list(self.prompt_encoder.point_embed.weight)


def _encoder(model: Any, parameters: dict[str, str]) -> Graph:
    size = model.prompt_encoder.input_image_size

    def case(seed: int, count: int) -> Arrays:
        return {"image": noise_images(seed, size, size, [(size, size)] * count)["image"]}

    @torch.no_grad()
    def reference(inputs: Arrays, _outputs: Arrays) -> Arrays:
        pixels, _ = normalised(inputs["image"], np.full((len(inputs["image"]), 2), size))
        embeddings = [model.get_image_embeddings(image[None]) for image in pixels]
        maps = [torch.cat(level).numpy() for level in zip(*embeddings, strict=True)]
        return dict(zip((*FEATURES, "image_embedding"), maps, strict=True))

    example = case(0, 2)
    return Graph(
        model="sam2_encoder",
        module=Encoder(model),
        inputs={name: torch.from_numpy(value) for name, value in example.items()},
        outputs={name: ("batch", *shape) for name, shape in _map_shapes(model).items()},
        dynamic={"image": {0: "batch"}},
        cases=[case(1, 1), case(2, 3)],
        reference=reference,
        parameters=parameters,
        # Both exporters take it; torch.export needs four times as long over its many windows.
        dynamo=False,
        opset=17,
    )


def _map_shapes(model: Any) -> dict[str, tuple[int, int, int]]:
    """Channels, rows and columns of what the encoder gives the decoder."""
    channels = model.config.vision_config.fpn_hidden_size
    grid = model.prompt_encoder.image_embedding_size[0]
    return {
        "image_embedding": (channels, grid, grid),
        "features_s4": (channels // 8, 4 * grid, 4 * grid),
        "features_s8": (channels // 4, 2 * grid, 2 * grid),
    }


def _decoder(model: Any, parameters: dict[str, str]) -> Graph:
    size, grid = model.prompt_encoder.input_image_size, model.prompt_encoder.image_embedding_size[0]

    def case(seed: int, batch: int, labels: Sequence[int], prompts: int, masks: int) -> Arrays:
        random = np.random.default_rng(seed)
        count = len(labels)
        points = random.uniform(0, size, (batch, prompts, count, 2))
        given = {
            "points": np.where(np.array(labels)[:, None] == -1, 0, points),
            "labels": np.broadcast_to(np.array(labels), (batch, prompts, count)),
            "mask_input": random.normal(size=(batch, masks, 4 * grid, 4 * grid)) * 8,
            "has_mask_input": random.integers(0, 2, (batch, masks)).astype(bool),
        }
        maps = {name: random.normal(size=(batch, *shape)) for name, shape in _map_shapes(model).items()}
        # Of every other image masks are clear, so that the single one is stable: both ways are compared.
        maps["features_s4"][1::2] = np.abs(maps["features_s4"][1::2]) * 100
        types = {"labels": np.int32, "has_mask_input": np.bool_}
        return {name: value.astype(types.get(name, np.float32)) for name, value in (maps | given).items()}

    example = case(0, 2, [1, 0, -1], 3, 3)
    return Graph(
        model="sam2_decoder",
        module=Decoder(model),
        inputs={name: torch.from_numpy(value) for name, value in example.items()},
        outputs=sam.mask_outputs(4 * grid),
        dynamic={
            "image_embedding": {0: "batch"},
            **{name: {0: "batch"} for name in FEATURES},
            **sam.PROMPT_AXES,
        },
        cases=[
            case(1, 1, [1, -1], 1, 1),
            case(2, 2, [2, 3, -1], 4, 1),
            case(3, 1, [1, 0, 0, 2, 3, -1], 3, 3),
            case(4, 3, [1, 1, 0, -1], 2, 2),
        ],
        reference=partial(decoder_reference, model),
        parameters=parameters | {"mask_size": str(4 * grid)},
        # As of SAM's decoder.
        dynamo=False,
        opset=17,
        half_products_only=True,
        half_kept_out=("shared_embedding",),
    )


@torch.no_grad()
def decoder_reference(model: Any, inputs: Arrays, _outputs: Arrays) -> Arrays:
    """Ask transformers' Sam2Model the same prompts, each alone: it takes one mask for an image's prompts."""
    results: dict[str, list[np.ndarray[Any, Any]]] = {}
    batch, prompts, _ = inputs["labels"].shape
    for image, prompt in np.ndindex(batch, prompts):
        # Sam2Model appends the padding point by itself.
        labels, points = inputs["labels"][image, prompt][:-1], inputs["points"][image, prompt][:-1]
        mask = prompt if inputs["mask_input"].shape[1] == prompts else 0
        asked: dict[str, Any] = {
            "image_embeddings": [
                torch.from_numpy(inputs[name][[image]]) for name in (*FEATURES, "image_embedding")
            ]
        }
        if 2 in labels:
            asked["input_boxes"] = torch.from_numpy(points[-2:].reshape(1, 1, 4))
            points, labels = points[:-2], labels[:-2]
        if len(labels):
            asked["input_points"] = torch.from_numpy(points[None, None])
            asked["input_labels"] = torch.from_numpy(labels[None, None])
        if inputs["has_mask_input"][image, mask]:
            asked["input_masks"] = torch.from_numpy(inputs["mask_input"][image, mask][None, None])
        for multimask, names in ((False, ("mask", "mask_iou")), (True, ("multimasks", "multimask_iou"))):
            output = model(**asked, multimask_output=multimask)
            for name, value in zip(names, (output.pred_masks, output.iou_scores), strict=True):
                found = value[0, 0] if multimask else value[0, 0, 0]
                results.setdefault(name, []).append(found.numpy())
    return {
        name: np.stack(values).reshape(batch, prompts, *values[0].shape) for name, values in results.items()
    }

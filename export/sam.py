"""Segment Anything: the image encoder and the prompt decoder as two graphs."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from export.graph import Arrays, Export, Graph
from export.pixels import Normalise, noise_images, normalised
from export.weights import Options, Variant, load

MULTIMASKS = 3
# The dynamic axes of every decoder's prompts.
PROMPT_AXES = {
    "points": {0: "batch", 1: "prompts", 2: "points"},
    "labels": {0: "batch", 1: "prompts", 2: "points"},
    "mask_input": {0: "batch", 1: "masks"},
    "has_mask_input": {0: "batch", 1: "masks"},
}


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
    """What export/demo/train_sam.py trains."""
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


def mask_outputs(size: int) -> dict[str, tuple[int | str, ...]]:
    """The outputs of every decoder, masks of `size` x `size`: one mask a prompt, and three."""
    return {
        "mask": ("batch", "prompts", size, size),
        "mask_iou": ("batch", "prompts"),
        "multimasks": ("batch", "prompts", MULTIMASKS, size, size),
        "multimask_iou": ("batch", "prompts", MULTIMASKS),
    }


def build(options: Options) -> tuple[Any, str]:
    """Return transformers' own SamModel, whose weights `prepare` exports, and the variant's name."""
    from transformers import SamModel

    def is_same(one: Any, other: Any) -> bool:
        fields = ("hidden_size", "num_hidden_layers", "image_size")
        return all(getattr(one.vision_config, f) == getattr(other.vision_config, f) for f in fields)

    return load(SamModel, VARIANTS, is_same, options)


def prepare(options: Options) -> Export:
    """Describe both graphs, with the reference that each must agree with."""
    model, variant = build(options)
    size = model.config.vision_config.image_size
    names = {"family": "sam", "variant": variant, "image_size": str(size)}
    return Export([_encoder(model, names), _decoder(model, names)])


class Encoder(nn.Module):
    """Pixels to image embedding."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.vision_encoder = model.vision_encoder

    def forward(self, image: Tensor, valid_size: Tensor) -> tuple[Tensor]:
        pixels, _ = self.normalise(image, valid_size)
        return (self.vision_encoder(pixels).last_hidden_state,)


class Decoder(nn.Module):
    """Image embedding and prompts to masks: the single-mask token's and the three multimask ones'."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.prompt_encoder = model.prompt_encoder
        self.mask_decoder = model.mask_decoder
        self.image_size = model.config.prompt_encoder_config.image_size
        with torch.no_grad():
            self.register_buffer("image_positions", model.get_image_wide_positional_embeddings())

    def forward(
        self,
        image_embedding: Tensor,
        points: Tensor,
        labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, ...]:
        batch, prompts, count = labels.shape
        sparse = self.embed_points(points, labels).reshape(batch * prompts, 1, count, -1)
        image = image_embedding[:, None] + self.embed_masks(mask_input, has_mask_input)
        # One copy of the image per prompt. Not repeat_interleave: it exports and fails when it runs.
        image = image.expand(-1, prompts, -1, -1, -1).flatten(0, 1)
        masks, iou = self.decode(image, sparse)
        masks = masks.reshape(batch, prompts, MULTIMASKS + 1, *masks.shape[-2:])
        iou = iou.reshape(batch, prompts, MULTIMASKS + 1)
        return masks[:, :, 0], iou[:, :, 0], masks[:, :, 1:], iou[:, :, 1:]

    def embed_points(self, points: Tensor, labels: Tensor) -> Tensor:
        encoder = self.prompt_encoder
        # Half a pixel, as SAM's prompt encoder adds to points and to box corners alike.
        embedding = encoder.shared_embedding((points + 0.5) / self.image_size)
        label = labels[..., None]
        embedding = torch.where(label == -1, encoder.not_a_point_embed.weight, embedding)
        for kind, weight in enumerate(self.point_kinds()):
            embedding = torch.where(label == kind, embedding + weight, embedding)
        return embedding

    def point_kinds(self) -> list[Tensor]:
        """What is added to points with the labels 0, 1, 2 and 3."""
        return [embed.weight for embed in self.prompt_encoder.point_embed]

    def embed_masks(self, mask_input: Tensor, has_mask_input: Tensor) -> Tensor:
        encoder = self.prompt_encoder
        dense = encoder.mask_embed(mask_input.flatten(0, 1)[:, None])
        dense = dense.unflatten(0, mask_input.shape[:2])
        nothing = encoder.no_mask_embed.weight.reshape(1, 1, -1, 1, 1)
        return torch.where(has_mask_input[..., None, None, None], dense, nothing)

    def decode(self, image: Tensor, sparse: Tensor) -> tuple[Tensor, Tensor]:
        decoder = self.mask_decoder
        tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens = tokens.expand(image.shape[0], 1, -1, -1)
        tokens, pixels = decoder.transformer(
            point_embeddings=torch.cat([tokens, sparse], dim=2),
            image_embeddings=image,
            image_positional_embeddings=self.image_positions,
            attention_similarity=None,
        )
        pixels = pixels[:, 0].transpose(1, 2).reshape(image.shape)
        pixels = decoder.activation(decoder.upscale_layer_norm(decoder.upscale_conv1(pixels)))
        pixels = decoder.activation(decoder.upscale_conv2(pixels))
        kernels = torch.stack(
            [mlp(tokens[:, 0, 1 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)], dim=1
        )
        masks = (kernels @ pixels.flatten(2)).unflatten(2, pixels.shape[-2:])
        return masks, decoder.iou_prediction_head(tokens[:, 0, 0])


def _encoder(model: Any, parameters: dict[str, str]) -> Graph:
    vision = model.config.vision_config
    size, grid = vision.image_size, vision.image_size // vision.patch_size

    def case(seed: int, *valid: tuple[int, int]) -> Arrays:
        return noise_images(seed, size, size, valid)

    @torch.no_grad()
    def reference(inputs: Arrays, _outputs: Arrays) -> Arrays:
        pixels, _ = normalised(inputs["image"], inputs["valid_size"])
        # One by one: an image takes gigabytes.
        embeddings = [model.get_image_embeddings(image[None]) for image in pixels]
        return {"image_embedding": torch.cat(embeddings).numpy()}

    example = case(0, (size, size), (size - 9, size))
    return Graph(
        model="sam_encoder",
        module=Encoder(model),
        inputs={name: torch.from_numpy(value) for name, value in example.items()},
        outputs={"image_embedding": ("batch", vision.output_channels, grid, grid)},
        dynamic={"image": {0: "batch"}, "valid_size": {0: "batch"}},
        cases=[case(1, (size, size // 2 + 3)), case(2, (size // 3, size), (size, size))],
        reference=reference,
        parameters=parameters,
    )


def _decoder(model: Any, parameters: dict[str, str]) -> Graph:
    vision = model.config.vision_config
    grid = vision.image_size // vision.patch_size

    def case(seed: int, batch: int, labels: Sequence[int], prompts: int, masks: int) -> Arrays:
        random = np.random.default_rng(seed)
        count = len(labels)
        embedding = random.normal(size=(batch, vision.output_channels, grid, grid))
        points = random.uniform(0, vision.image_size, (batch, prompts, count, 2))
        return {
            "image_embedding": embedding.astype(np.float32),
            "points": np.where(np.array(labels)[:, None] == -1, 0, points).astype(np.float32),
            "labels": np.broadcast_to(np.array(labels, np.int32), (batch, prompts, count)).copy(),
            "mask_input": random.normal(size=(batch, masks, 4 * grid, 4 * grid)).astype(np.float32) * 8,
            "has_mask_input": random.integers(0, 2, (batch, masks)).astype(bool),
        }

    example = case(0, 2, [1, 0, -1], 3, 3)
    return Graph(
        model="sam_decoder",
        module=Decoder(model),
        inputs={name: torch.from_numpy(value) for name, value in example.items()},
        outputs=mask_outputs(4 * grid),
        dynamic={
            "image_embedding": {0: "batch"},
            **PROMPT_AXES,
        },
        cases=[
            case(1, 1, [1, -1], 1, 1),
            case(2, 2, [2, 3], 4, 1),
            case(3, 1, [1, 0, 0, 2, 3], 3, 3),
            case(4, 3, [1, 1, 0, -1], 2, 2),
        ],
        reference=partial(decoder_reference, model),
        parameters=parameters | {"mask_size": str(4 * grid)},
        # torch.export would decide for good whether the masks are one or as many as the prompts.
        dynamo=False,
        opset=17,
        # Halves tell pixels of the 1024 frame apart only just: what places a prompt stays in float32.
        half_products_only=True,
        half_kept_out=("shared_embedding",),
    )


@torch.no_grad()
def decoder_reference(model: Any, inputs: Arrays, _outputs: Arrays) -> Arrays:
    """Ask transformers' SamModel the same prompts, each alone: it takes one mask for an image's prompts."""
    results: dict[str, list[np.ndarray[Any, Any]]] = {}
    batch, prompts, _ = inputs["labels"].shape
    for image, prompt in np.ndindex(batch, prompts):
        labels = inputs["labels"][image, prompt]
        points = inputs["points"][image, prompt]
        mask = prompt if inputs["mask_input"].shape[1] == prompts else 0
        asked: dict[str, Any] = {"image_embeddings": torch.from_numpy(inputs["image_embedding"][[image]])}
        if 2 in labels:
            asked["input_boxes"] = torch.from_numpy(points[-2:].reshape(1, 1, 4))
            points, labels = points[:-2], labels[:-2]
        elif labels[-1] == -1:
            # SamModel appends this point to a prompt without a box by itself.
            points, labels = points[:-1], labels[:-1]
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

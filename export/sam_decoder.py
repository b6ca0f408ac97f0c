"""What the decoders of SAM and SAM 2.1 share: prompts, outputs, and the comparison with their references."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from export import ranges
from export.graph import Arrays, Graph
from export.measures import MIN_IOU, Measure, masks

MULTIMASKS = 3
# Of masks that seeded weights draw: they hang on the rounding of scores that are all near zero.
MIN_IOU_OF_SEEDED = 0.9
PADDING, BOX_MIN = -1, 2
"""Labels of a point that counts for nothing, and of a box's top-left corner."""


class PromptDecoder(nn.Module):
    """A decoder with the parts of transformers' model that embed its prompts."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.prompt_encoder = model.prompt_encoder
        self.mask_decoder = model.mask_decoder
        self.image_size = model.config.prompt_encoder_config.image_size
        with torch.no_grad():
            self.register_buffer("image_positions", model.get_image_wide_positional_embeddings())

    def embed(
        self, image: Tensor, points: Tensor, labels: Tensor, mask_input: Tensor, has_mask_input: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the image [n,C,g,g] with its mask, and the points [n,1,N,C], of n = B * P prompts."""
        batch, prompts, count = labels.shape
        sparse = self.embed_points(points, labels).reshape(batch * prompts, 1, count, -1)
        image = image[:, None] + self.embed_masks(mask_input, has_mask_input)
        # One copy of the image per prompt. Not repeat_interleave: it exports and fails when it runs.
        return image.expand(-1, prompts, -1, -1, -1).flatten(0, 1), sparse

    def transform(self, tokens: Tensor, image: Tensor, sparse: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output tokens [n,T,C] and the pixels [n,C,g,g] after the transformer."""
        count = len(tokens)
        tokens, pixels = self.mask_decoder.transformer(
            point_embeddings=torch.cat([tokens.expand(image.shape[0], 1, -1, -1), sparse], dim=2),
            image_embeddings=image,
            image_positional_embeddings=self.image_positions,
            attention_similarity=None,
        )
        return tokens[:, 0, :count], pixels[:, 0].transpose(1, 2).reshape(image.shape)

    def draw_masks(self, tokens: Tensor, pixels: Tensor) -> Tensor:
        """Return the masks [n,4,m,m] of the mask tokens [n,4,C] on the enlarged pixels [n,c,m,m]."""
        mlps = self.mask_decoder.output_hypernetworks_mlps
        kernels = torch.stack([mlp(tokens[:, i]) for i, mlp in enumerate(mlps)], dim=1)
        return (kernels @ pixels.flatten(2)).reshape(*kernels.shape[:2], *pixels.shape[-2:])

    def embed_points(self, points: Tensor, labels: Tensor) -> Tensor:
        """Return the embeddings [B,P,N,C] of points [B,P,N,2] with labels [B,P,N]."""
        encoder = self.prompt_encoder
        # SAM's prompt encoder adds half a pixel to points and to box corners alike.
        embedding = encoder.shared_embedding((points + 0.5) / self.image_size)
        label = labels[..., None]
        embedding = torch.where(label == PADDING, encoder.not_a_point_embed.weight, embedding)
        for kind, weight in enumerate(self.point_kinds()):
            embedding = torch.where(label == kind, embedding + weight, embedding)
        return embedding

    def point_kinds(self) -> list[Tensor]:
        """Return what is added to points with the labels 0, 1, 2 and 3."""
        return [embed.weight for embed in self.prompt_encoder.point_embed]

    def embed_masks(self, mask_input: Tensor, has_mask_input: Tensor) -> Tensor:
        """Return the embeddings [B,M,C,g,g] of masks [B,M,m,m], or that of no mask."""
        encoder = self.prompt_encoder
        dense = encoder.mask_embed(mask_input.flatten(0, 1)[:, None])
        dense = dense.unflatten(0, mask_input.shape[:2])
        no_mask = encoder.no_mask_embed.weight.reshape(1, 1, -1, 1, 1)
        return torch.where(has_mask_input[..., None, None, None], dense, no_mask)


def random_prompts(
    random: np.random.Generator,
    labels: Sequence[int],
    *,
    batch: int,
    prompts: int,
    masks: int,
    image_size: int,
    mask_size: int,
) -> Arrays:
    """Return the prompt inputs of a decoder: `prompts` of every image have these labels at random places."""
    count = len(labels)
    points = random.uniform(0, image_size, (batch, prompts, count, 2))
    return {
        "points": np.where(np.array(labels)[:, None] == PADDING, 0, points).astype(np.float32),
        "labels": np.broadcast_to(np.array(labels, np.int32), (batch, prompts, count)).copy(),
        "mask_input": random.normal(size=(batch, masks, mask_size, mask_size)).astype(np.float32) * 8,
        "has_mask_input": random.integers(0, 2, (batch, masks)).astype(bool),
    }


def decoder_graph(
    name: str,
    decoder: PromptDecoder,
    case: Callable[[int, int, Sequence[int], int, int], Arrays],
    reference: Callable[[Arrays, Arrays], Arrays],
    *,
    mask_size: int,
    box_padding: Sequence[int],
    parameters: Mapping[str, str],
    encode: Callable[[], Arrays],
    min_iou: float,
) -> Graph:
    """Describe the graph of a decoder.

    `case` makes its inputs of (seed, batch, labels, prompts, masks). `box_padding` are the labels that
    follow those of a box. `encode` returns its inputs that come from the encoder, for a few photos.
    """

    def photos() -> list[Arrays]:
        encoded = encode()
        count = len(next(iter(encoded.values()), ()))
        prompts = (
            (case(5, count, [1, PADDING], 4, 1), case(6, count, [2, 3, *box_padding], 2, 1)) if count else ()
        )
        no_masks = {"has_mask_input": np.zeros((count, 1), bool)}
        return [prompt | encoded | no_masks for prompt in prompts]

    example = case(0, 2, [1, 0, PADDING], 3, 3)

    def request(labels: Sequence[int]) -> Arrays:
        prompt = case(0, 1, labels, 1, 1)
        return {name: np.zeros_like(value) for name, value in prompt.items()} | {"labels": prompt["labels"]}

    prompt_axes = {
        "points": {0: "batch", 1: "prompts", 2: "points"},
        "labels": {0: "batch", 1: "prompts", 2: "points"},
        "mask_input": {0: "batch", 1: "masks"},
        "has_mask_input": {0: "batch", 1: "masks"},
    }
    return Graph(
        model=name,
        module=decoder,
        inputs=example,
        outputs={
            "mask": ("batch", "prompts", mask_size, mask_size),
            "mask_iou": ("batch", "prompts"),
            "multimasks": ("batch", "prompts", MULTIMASKS, mask_size, mask_size),
            "multimask_iou": ("batch", "prompts", MULTIMASKS),
        },
        dynamic={name: prompt_axes.get(name, {0: "batch"}) for name in example},
        cases=[
            case(1, 1, [1, PADDING], 1, 1),
            case(2, 2, [2, 3, *box_padding], 4, 1),
            case(3, 1, [1, 0, 0, 2, 3, *box_padding], 3, 3),
            case(4, 3, [1, 1, 0, PADDING], 2, 2),
        ],
        reference=reference,
        ranges=ranges.of_prompts(),
        measures=[masks("mask", "multimasks", limit=min_iou)],
        photos=photos,
        warmup=[request([1, PADDING]), request([BOX_MIN, BOX_MIN + 1, *box_padding])],
        parameters={**parameters, "mask_size": str(mask_size)},
        # torch.export would decide for good whether there is one mask or one for every prompt.
        dynamo=False,
        opset=17,
        # Half precision can hardly tell neighbouring pixels of the 1024 frame apart.
        half_kept_out=("shared_embedding",),
    )


@torch.no_grad()
def mask_measure(model: Any, embeddings: Callable[[Arrays], Any], image_size: int, min_iou: float) -> Measure:
    """Return the measure of an encoder: the masks that PyTorch's decoder draws at four points.

    `embeddings` turns the encoder's outputs into what transformers' model takes.
    """
    sides = torch.tensor([image_size / 4, image_size * 3 / 4])
    points = torch.cartesian_prod(sides, sides)[:, None]

    @torch.no_grad()
    def draw(outputs: Arrays) -> np.ndarray[Any, Any]:
        batch = len(outputs["image_embedding"])
        answer = model(
            image_embeddings=embeddings(outputs),
            input_points=points.expand(batch, -1, -1, -1),
            multimask_output=False,
        )
        drawn: np.ndarray[Any, Any] = answer.pred_masks.numpy()
        return drawn

    return masks(limit=min_iou, draw=draw)


def least_iou(weights: str) -> float:
    """Return the least IoU with the masks of float32 for `--weights`."""
    return MIN_IOU_OF_SEEDED if weights == "random" else MIN_IOU


@torch.no_grad()
def ask_each_prompt(model: Any, inputs: Arrays, embeddings: Callable[[int], Any]) -> Arrays:
    """Return a decoder's outputs as transformers' model has them, asked for one prompt at a time.

    Alone, because the model takes only one mask for all prompts of an image. `embeddings` returns an
    image's, as the model takes them.
    """
    results: dict[str, list[np.ndarray[Any, Any]]] = {}
    batch, prompts, _ = inputs["labels"].shape
    for image, prompt in np.ndindex(batch, prompts):
        labels, points = inputs["labels"][image, prompt], inputs["points"][image, prompt]
        mask = prompt if inputs["mask_input"].shape[1] == prompts else 0
        arguments: dict[str, Any] = {"image_embeddings": embeddings(image)}
        if labels[-1] == PADDING:
            # transformers' model appends this point itself.
            labels, points = labels[:-1], points[:-1]
        if BOX_MIN in labels:
            arguments["input_boxes"] = torch.from_numpy(points[-2:].reshape(1, 1, 4))
            labels, points = labels[:-2], points[:-2]
        if len(labels):
            arguments["input_points"] = torch.from_numpy(points[None, None])
            arguments["input_labels"] = torch.from_numpy(labels[None, None])
        if inputs["has_mask_input"][image, mask]:
            arguments["input_masks"] = torch.from_numpy(inputs["mask_input"][image, mask][None, None])
        for multimask, names in ((False, ("mask", "mask_iou")), (True, ("multimasks", "multimask_iou"))):
            output = model(**arguments, multimask_output=multimask)
            for name, value in zip(names, (output.pred_masks, output.iou_scores), strict=True):
                answer = value[0, 0] if multimask else value[0, 0, 0]
                results.setdefault(name, []).append(answer.numpy())
    return {
        name: np.stack(values).reshape(batch, prompts, *values[0].shape) for name, values in results.items()
    }

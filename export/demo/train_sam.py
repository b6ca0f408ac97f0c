"""Teaches a small Segment Anything the masks of drawn shapes, by boxes, points and its own earlier masks."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from export.demo.command import main
from export.demo.scenes import FIRST_UNSEEN_SEED, Scene, draw
from export.demo.training import Recipe, train_family
from export.sam import Decoder, Encoder, build
from export.weights import Options
from gateway.models.sam import BACKGROUND, BOX_MAX, BOX_MIN, FOREGROUND, PADDING, Prompt, SamSpec

RECIPE = Recipe(
    steps=3600, learning_rate=1.2e-3, warmup=150, weight_decay=0.02, average=0.995, report_every=100
)

SCENES, IMAGES, PROMPTS = 3500, 8, 6
"""The number of scenes that are trained on, of images in a step, and of first prompts for an image."""
REFINED = 3
"""Every other step asks this many of an image's prompts again, with more points, the first mask, or both."""
LONGER_SIDE, SHORTER_SIDES = 320, range(180, 321, 4)
"""The sides of the scenes in pixels. They are drawn larger than the encoder sees them."""
BOX_ERRORS = (0.0, 0.03, 0.06)
"""Spreads of the error of a box's sides, as shares of its width and height. All are equally likely."""
SHARPNESS = 3.0
"""Logits are this many times the logits of the share of a pixel that is covered.

Otherwise edges, which are hardly wider than a pixel of such a small mask, look unstable to SegmentEverything.
"""
REPORTED = 40
"""The number of unseen scenes in a report."""


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A scene as the encoder sees it, S x S pixels, and its K things as the decoder should answer them.

    image: uint8 [S,S,3], zero outside `valid_size` (height, width). covers: uint8 [K,m,m], how much of a
    mask's pixel the thing covers: 255 is all of it. boxes: float32 [K,4] xyxy in pixels of the image.
    """

    image: NDArray[np.uint8]
    valid_size: tuple[int, int]
    covers: NDArray[np.uint8]
    boxes: NDArray[np.float32]

    @property
    def ratio(self) -> int:
        """Return the side of a mask's pixel, in pixels of the image."""
        return int(self.image.shape[0] // self.covers.shape[1])


def example(scene: Scene, sam: SamSpec) -> Example:
    """Return a scene in the encoder's frame, as the gateway brings it there."""
    image, (height, width) = sam.preprocess(scene.image)
    covers = np.zeros((len(scene.things), sam.image_size, sam.image_size), np.float32)
    for cover, thing in zip(covers, scene.things, strict=True):
        mask = thing.mask.astype(np.float32) * 255
        cover[:height, :width] = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)
    ratio = sam.image_size // sam.mask_size
    covers = covers.reshape(-1, sam.mask_size, ratio, sam.mask_size, ratio).mean((2, 4))
    scale = np.array([width, height] * 2) / np.array(scene.image.shape[1::-1] * 2)
    boxes = np.stack([thing.box for thing in scene.things]) * scale
    return Example(image, (height, width), covers.round().astype(np.uint8), boxes.astype(np.float32))


def turned(seen: Example, random: np.random.Generator) -> Example:
    """Return one of 48 views: mirrored or not, axes swapped or not, and red, green and blue shuffled.

    The sides of its valid area must be whole pixels of the masks.
    """
    (height, width), image, covers = seen.valid_size, seen.image.copy(), seen.covers.copy()
    x_min, y_min, x_max, y_max = seen.boxes.T
    rows, columns = height // seen.ratio, width // seen.ratio
    if random.random() < 0.5:
        image[:, :width] = image[:, :width][:, ::-1]
        covers[..., :columns] = covers[..., :columns][..., ::-1]
        x_min, x_max = width - x_max, width - x_min
    if random.random() < 0.5:
        image[:height] = image[:height][::-1]
        covers[:, :rows] = covers[:, :rows][:, ::-1]
        y_min, y_max = height - y_max, height - y_min
    boxes = np.stack([x_min, y_min, x_max, y_max], 1)
    if random.random() < 0.5:
        image, covers, boxes = image.transpose(1, 0, 2), covers.transpose(0, 2, 1), boxes[:, [1, 0, 3, 2]]
        height, width = width, height
    return Example(image[..., random.permutation(3)], (height, width), covers, boxes)


def first_prompts(
    seen: Example, count: int, random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int32]]:
    """Return prompts that ask for things by a box or by a point inside. The last one is a point on no thing.

    They are the indices of the things, int [count] with -1 for none, and what the decoder takes: points
    float32 [count,2,2] and labels int32 [count,2].
    """
    things = random.integers(len(seen.boxes), size=count)
    things[-1] = -1
    points = np.zeros((count, 2, 2), np.float32)
    labels = np.zeros((count, 2), np.int32)
    height, width = seen.valid_size
    for index, thing in enumerate(things):
        if thing < 0:
            is_free = seen.covers.max(0) == 0
            is_valid = is_free[: height // seen.ratio, : width // seen.ratio]
            points[index, 0] = point_in(any_cell(is_valid, random), seen.ratio, random)
            labels[index] = FOREGROUND, PADDING
        elif random.random() < 0.5:
            points[index, 0] = point_in(any_cell(seen.covers[thing] > 127, random), seen.ratio, random)
            labels[index] = FOREGROUND, PADDING
        else:
            corners = seen.boxes[thing].reshape(2, 2)
            error = random.choice(BOX_ERRORS) * random.standard_normal((2, 2)) * (corners[1] - corners[0])
            points[index] = (corners + error).clip(0, [width, height])
            labels[index] = BOX_MIN, BOX_MAX
    return things, points, labels


def any_cell(allowed: NDArray[np.bool_], random: np.random.Generator) -> NDArray[np.int64]:
    """Return (row, column) of a random pixel among those of a mask, bool [m,m], that are allowed."""
    places = np.argwhere(allowed)
    place: NDArray[np.int64] = places[random.integers(len(places))]
    return place


def point_in(cell: NDArray[np.int64], ratio: int, random: np.random.Generator) -> NDArray[np.float32]:
    """Return (x, y) in pixels of the image, at a random place in the (row, column) of a mask."""
    return ((cell[::-1] + random.random(2)) * ratio).astype(np.float32)


def losses(outputs: Sequence[Tensor], truth: Tensor, is_thing: Tensor) -> dict[str, Tensor]:
    """Return how far the single mask, the best of three masks, and the predicted IoUs are from the truth.

    outputs: the decoder's. truth: float [B,P,m,m], the covered share of each pixel. is_thing: bool [B,P],
    elsewhere no mask is right and the IoU should be 0.
    """
    mask, mask_iou, multimasks, multimask_iou = (output.float() for output in outputs)
    logits = torch.cat([mask[:, :, None], multimasks], 2) / SHARPNESS
    predicted = torch.cat([mask_iou[:, :, None], multimask_iou], 2)
    wanted = truth[:, :, None].expand_as(logits)
    entropy = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean((-2, -1))
    share = logits.sigmoid()
    dice = 1 - (2 * (share * wanted).sum((-2, -1)) + 1) / ((share + wanted).sum((-2, -1)) + 1)
    loss = (10 * entropy + dice) * is_thing[..., None]
    with torch.no_grad():
        is_covered, should_be = logits > 0, wanted > 0.5
        iou = (is_covered & should_be).sum((-2, -1)) / (is_covered | should_be).sum((-2, -1)).clamp(min=1)
        iou = iou * is_thing[..., None]
    return {
        "mask": loss[..., 0].sum() / is_thing.sum(),
        "best of three": loss[..., 1:].amin(-1).sum() / is_thing.sum(),
        "IoU": 3 * (predicted - iou).square().mean(),
    }


class Learner:
    """A SamModel that starts from nothing. Scenes are drawn once, and seen in many ways."""

    def __init__(self, device: torch.device, scenes: int | None = None) -> None:
        self.network = build(Options(weights="random", variant="demo"))[0].to(device)
        # The waves that encode places are constants in the decoder's graph.
        self.network.shared_image_embedding.requires_grad_(False)
        # Faster than PyTorch's own attention for so few queries and such narrow heads.
        self.network.config.mask_decoder_config._attn_implementation = "eager"
        self._encoder, self._decoder = Encoder(self.network).to(device), Decoder(self.network).to(device)
        vision = self.network.config.vision_config
        self._sam = SamSpec(vision.image_size, vision.image_size // vision.patch_size * 4)
        self._device = device
        self._scenes = SCENES if scenes is None else scenes

    @cached_property
    def _examples(self) -> list[Example]:
        sides = [SHORTER_SIDES[seed % len(SHORTER_SIDES)] for seed in range(self._scenes)]
        drawn = (draw(seed, LONGER_SIDE, side) for seed, side in enumerate(sides))
        return [example(scene, self._sam) for scene in drawn if scene.things]

    def loss(self, random: np.random.Generator, progress: float) -> dict[str, Tensor]:
        chosen = random.integers(len(self._examples), size=IMAGES)
        views = [turned(self._examples[index], random) for index in chosen]
        embedding = self._embed([view.image for view in views], [view.valid_size for view in views])
        prompts = [first_prompts(view, PROMPTS, random) for view in views]
        things, points, labels = (np.stack(column) for column in zip(*prompts, strict=True))
        covers = [view.covers[index] for view, index in zip(views, things, strict=True)]
        truth, is_thing = self._tensor(np.stack(covers)).float() / 255, self._tensor(things >= 0)
        empty_masks = np.zeros((IMAGES, 1, *truth.shape[2:]), np.float32)
        no_mask = np.zeros((IMAGES, 1), np.bool_)
        first = self._decoder(embedding, *map(self._tensor, (points, labels, empty_masks, no_mask)))
        terms = losses(first, truth, is_thing)
        if random.random() < 0.5:
            return terms
        logits, truth = first[0][:, :REFINED].detach().float(), truth[:, :REFINED]
        more, kinds = self._more_points(logits, truth, random)
        points = np.concatenate([more, points[:, :REFINED]], 2)
        labels = np.concatenate([kinds, labels[:, :REFINED]], 2)
        has_mask = random.random((IMAGES, REFINED)) < (0.5 if kinds.shape[2] else 1)
        second = self._decoder(
            embedding, self._tensor(points), self._tensor(labels), logits, self._tensor(has_mask)
        )
        for name, value in losses(second, truth, is_thing[:, :REFINED]).items():
            terms[name] = (terms[name] + value) / 2
        return terms

    def _more_points(
        self, logits: Tensor, truth: Tensor, random: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Return up to two points where a mask is wrong, or inside it if it is right.

        They are points [B,P,N,2] and labels [B,P,N].
        """
        wanted = (truth > 0.5).cpu().numpy()
        wrong = (logits > 0).cpu().numpy() != wanted
        points = np.zeros((*wanted.shape[:2], random.integers(3), 2), np.float32)
        labels = np.zeros(points.shape[:3], np.int32)
        for image, prompt, index in np.ndindex(labels.shape):
            allowed = wrong[image, prompt] if wrong[image, prompt].any() else wanted[image, prompt]
            cell = any_cell(allowed, random)
            points[image, prompt, index] = point_in(cell, self._sam.image_size // self._sam.mask_size, random)
            labels[image, prompt, index] = FOREGROUND if wanted[image, prompt, *cell] else BACKGROUND
        return points, labels

    def segment(
        self, image: NDArray[np.uint8], prompts: Sequence[Prompt], *, multimask: bool = False
    ) -> list[tuple[NDArray[np.bool_], float]]:
        """Return masks bool [H,W] and predicted IoUs as the gateway does; `multimask`: the best of three."""
        canvas, valid_size = self._sam.preprocess(image)
        size = (image.shape[0], image.shape[1])
        embedding = self._embed([canvas], [valid_size])
        answers: dict[int, tuple[NDArray[np.bool_], float]] = {}
        for group in self._sam.group_prompts(prompts, size, max_prompts=64):
            inputs = (group.points, group.labels, group.mask_input, group.has_mask_input)
            outputs = self._decoder(embedding, *(self._tensor(value[None]) for value in inputs))
            mask, mask_iou, multimasks, multimask_iou = (output[0].cpu().numpy() for output in outputs)
            if not multimask:
                multimasks, multimask_iou = mask[:, None], mask_iou[:, None]
            for row, index in enumerate(group.indices):
                best = multimask_iou[row].argmax()
                whole = self._sam.postprocess_mask(multimasks[row, best], valid_size, size).whole()
                answers[index] = whole, float(multimask_iou[row, best])
        return [answers[index] for index in range(len(prompts))]

    def report(self) -> str:
        random = np.random.default_rng(0)
        ious: dict[str, list[float]] = {"box": [], "wrong box": [], "point": []}
        for scene in self._unseen:
            boxes = [thing.box.astype(np.float64) for thing in scene.things]
            error = [0.04 * random.standard_normal(4) * np.tile(box[2:] - box[:2], 2) for box in boxes]
            pixels = [any_cell(thing.mask, random)[::-1] + 0.5 for thing in scene.things]
            prompts = {
                "box": [Prompt(box=box.astype(np.float32)) for box in boxes],
                "wrong box": [
                    Prompt(box=(b + e).astype(np.float32)) for b, e in zip(boxes, error, strict=True)
                ],
                "point": [Prompt(point[None], np.array([FOREGROUND])) for point in pixels],
            }
            for name, group in prompts.items():
                masks = self.segment(scene.image, group, multimask=name == "point")
                for (mask, _), thing in zip(masks, scene.things, strict=True):
                    ious[name].append(float((mask & thing.mask).sum() / (mask | thing.mask).sum()))
        figures = ", ".join(f"{np.mean(values):.3f} from {name}" for name, values in ious.items())
        return f"mean IoU of {len(ious['box'])} unseen: {figures}"

    def save(self, folder: Path) -> None:
        deepcopy(self.network).cpu().half().save_pretrained(folder)

    @cached_property
    def _unseen(self) -> list[Scene]:
        return [draw(FIRST_UNSEEN_SEED + index, 480, 360) for index in range(REPORTED)]

    def _embed(self, images: Sequence[NDArray[np.uint8]], valid_sizes: Sequence[tuple[int, int]]) -> Tensor:
        sizes = np.array(valid_sizes, np.int32)
        embedding: Tensor = self._encoder(self._tensor(np.stack(images)), self._tensor(sizes))[0]
        return embedding

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(values).to(self._device)


def run(device: str, steps: int | None, states: Path, weights: Path) -> None:
    """Train and write the weights."""
    train_family(Learner, RECIPE, "sam", device=device, steps=steps, states=states, weights=weights / "sam")


if __name__ == "__main__":
    main(run)

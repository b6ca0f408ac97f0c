"""docTR's detection network learns where words are on drawn scenes."""

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from export.demo.agreement import MIN_IOU
from export.demo.scenes import FIRST_UNSEEN_SEED, Plan, Scene, Word, draw
from export.demo.training import Recipe, save_halves, train_family
from export.doctr_pixels import normalised
from export.doctr_weights import new_detector
from export.families.doctr import DEMO, DETECTORS
from gateway.models.boxes import iou
from gateway.models.doctr import fit
from gateway.models.doctr_detection import MapThresholds, find_boxes, remove_padding

RECIPE = Recipe(steps=1500, learning_rate=2e-3, warmup=100, report_every=100)
BATCH = 4
PLAN = Plan(shapes=(0, 6), words=(0, 9), faces=(0, 2), font_size=(0.05, 0.13))
LONGER_SIDES = (384, 480)
ASPECTS = (4 / 3, 4 / 3, 1.0, 3 / 4, 16 / 9)

# How much larger than its ink a word's box should be on each side, as a share of its height.
MARGIN = 0.05
# The shortest side of a word on the map, in pixels. The gateway drops what is narrower than three pixels.
MIN_SIDE = 3.2
# The weight of the pixels in the loss: most pixels are no text, and learn that soon.
PIXELS_WEIGHT = 5.0

UNSEEN_SCENES = 40
UNSEEN_PLAN = Plan(words=(1, 4))


class DetectionLearner:
    """The detection network, which learns of every pixel whether it is text."""

    def __init__(self, device: torch.device) -> None:
        self.network = new_detector(DEMO).to(memory_format=torch.channels_last)
        # The network then returns logits, in training too.
        self.network.exportable = True
        self._device = device

    def loss(self, random: np.random.Generator, progress: float) -> dict[str, Tensor]:
        """Return the cross-entropy of the pixels, and how far they are from covering the words (Dice)."""
        images, maps = draw_batch(random, BATCH, self.network.postprocessor.unclip_ratio)
        target = torch.from_numpy(maps).to(self._device)
        logits = self._logits(images)
        text = logits.sigmoid()
        common = 2 * (text * target).sum() + 1
        return {
            "pixels": PIXELS_WEIGHT * binary_cross_entropy_with_logits(logits, target),
            "overlap": 1 - common / (text.sum() + target.sum() + 1),
        }

    def report(self) -> str:
        """Return recall and precision at IoU 0.5, and the mean IoU of the words found."""
        ious: list[float] = []
        words = found = 0
        for seed in range(FIRST_UNSEEN_SEED, FIRST_UNSEEN_SEED + UNSEEN_SCENES):
            scene = draw(seed, 480, 360, UNSEEN_PLAN)
            boxes = self.find(scene.image)
            words, found = words + len(scene.words), found + len(boxes)
            if len(boxes):
                ious += [float(iou(word.box[None], boxes).max()) for word in scene.words]
        right = [overlap for overlap in ious if overlap >= MIN_IOU]
        return (
            f"recall {len(right) / words:.3f}, precision {len(right) / max(1, found):.3f}, "
            f"IoU {np.mean(right) if right else 0:.2f}"
        )

    def find(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the boxes float32 [n,4] xyxy, in pixels, of an image's words as the gateway finds them."""
        post = self.network.postprocessor
        thresholds = MapThresholds(
            post.bin_thresh, post.box_thresh, post.unclip_ratio, DETECTORS[DEMO.detector]
        )
        size = DEMO.image_size
        probabilities = (
            self._logits(fit(image, (size, size), centred=True)[None]).sigmoid()[0].float().cpu().numpy()
        )
        boxes, _ = find_boxes(probabilities, thresholds)
        height, width = image.shape[:2]
        places = remove_padding(boxes.reshape(-1, 2, 2), (height, width)) * [width, height]
        return places.reshape(-1, 4).astype(np.float32)

    def save(self, folder: Path) -> None:
        """Write the weights as the exporter reads them."""
        save_halves(self.network.state_dict(), folder / f"{DEMO.detector}.safetensors")

    def _logits(self, images: NDArray[np.uint8]) -> Tensor:
        pixels = normalised(images, self.network).to(self._device, memory_format=torch.channels_last)
        return torch.as_tensor(self.network(pixels)["logits"])[:, 0].float()


def draw_batch(
    random: np.random.Generator, count: int, unclip_ratio: float
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Draw images uint8 [n,S,S,3], fitted as in the gateway, with their target maps float32 [n,S,S]."""
    size = DEMO.image_size
    images, maps = [], []
    for _ in range(count):
        longest = random.uniform(*LONGER_SIDES)
        aspect = ASPECTS[random.integers(len(ASPECTS))]
        width, height = round(longest * min(1, aspect)), round(longest / max(1, aspect))
        scene = draw(int(random.integers(FIRST_UNSEEN_SEED)), width, height, PLAN)
        images.append(fit(scene.image, (size, size), centred=True))
        maps.append(target_map(scene, size, unclip_ratio))
    return np.stack(images), np.stack(maps)


def target_map(scene: Scene, size: int, unclip_ratio: float) -> NDArray[np.float32]:
    """Return how much of each pixel the scene's shrunken words cover, float32 [S,S]."""
    canvas = np.zeros((size, size), np.float32)
    for word in scene.words:
        x_min, y_min, x_max, y_max = shrunken(on_canvas(word, scene, size), unclip_ratio)
        canvas = np.maximum(canvas, np.outer(_cover(y_min, y_max, size), _cover(x_min, x_max, size)))
    return canvas


def on_canvas(word: Word, scene: Scene, size: int) -> NDArray[np.float64]:
    """Return the word's box, xyxy, in pixels of the square canvas that has the scene in its middle."""
    height, width = scene.image.shape[:2]
    scale = size / max(height, width)
    low = np.array([size - width * scale, size - height * scale]) / 2
    box: NDArray[np.float64] = word.box.astype(np.float64) * scale + np.tile(low, 2)
    return box


def shrunken(box: NDArray[np.float64], unclip_ratio: float) -> NDArray[np.float64]:
    """Return the part of a word's box, xyxy, that must be text on the map for the gateway to find the box.

    The gateway grows width w and height h on all sides by d = unclip_ratio * w * h / (2 * (w + h)), and by
    one pixel more to the right and downwards. In terms of the grown sides, d is a root of a quadratic
    equation.
    """
    margin = MARGIN * (box[3] - box[1])
    wanted = box + margin * np.array([-1, -1, 1, 1]) - np.array([0, 0, 1, 1])
    w, h = wanted[2:] - wanted[:2]
    r, around = unclip_ratio, (1 + unclip_ratio) * (w + h)
    d = (around - math.sqrt(around**2 - (4 * r + 8) * r * w * h)) / (4 * r + 8)
    sides = np.maximum(np.array([w, h]) - 2 * d, MIN_SIDE)
    middle = (wanted[:2] + wanted[2:]) / 2
    return np.concatenate([middle - sides / 2, middle + sides / 2])


def _cover(low: float, high: float, size: int) -> NDArray[np.float32]:
    """Return how much of each of `size` pixels in a row lies between two places."""
    edges = np.arange(size + 1).clip(low, high)
    return np.diff(edges).astype(np.float32)


def train_detection(device: str, steps: int | None, states: Path, weights: Path) -> None:
    """Train the network and write its weights."""
    train_family(
        DetectionLearner,
        RECIPE,
        "doctr_detection",
        device=device,
        steps=steps,
        states=states,
        weights=weights,
    )

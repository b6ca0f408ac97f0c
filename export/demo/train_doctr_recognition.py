"""docTR's recognition network learns to read words cut out of drawn scenes."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.demo.scenes import (
    FIRST_UNSEEN_SEED,
    FONTS,
    OVERSAMPLING,
    Painter,
    Plan,
    draw,
    font,
    word,
)
from export.demo.training import Recipe, save_halves, train_family
from export.doctr_pixels import normalised
from export.doctr_weights import new_recognizer
from export.families.doctr import DEMO
from gateway.models.doctr import fit
from gateway.models.doctr_recognition import MAX_CROP_RATIO, PIECE_RATIO, decode_ctc, merge, split
from gateway.models.text import Steps

Pixels = NDArray[np.uint8]

RECIPE = Recipe(steps=18000, learning_rate=2e-3, warmup=150, max_gradient_norm=5.0, report_every=200)
BATCH = 64

# Words are drawn before the training starts, this many on each of this many pages.
PAGES, WORDS = 4000, 22
# Width and height, in pixels.
PAGE_SIZE = 480, 360
# The smallest and the largest font, as shares of the page's shorter side.
FONT_SIZE = 0.045, 0.13
# How much of the page is kept around a word, in pixels.
MARGIN = 6

# How far outwards the sides of a detected box are off, as shares of the word's height: mean and deviation.
OUTWARDS, DEVIATION = 0.07, 0.06
# The share of the wide words that are seen in pieces, as the gateway reads very wide ones.
PIECES_SHARE = 0.3
# The share of a character at the edge of a piece that must be in it for the character to be read.
MIN_VISIBLE = 0.5

UNSEEN_SCENES = 60
UNSEEN_PLAN = Plan(words=(1, 4))


@dataclass(frozen=True, slots=True, eq=False)
class Printed:
    """A word and the page around it.

    pixels: uint8 [H,W,3]. box: float32 [4] xyxy, the word's ink in them. ends: float32 [n], where each
    character ends, in pixels from the left side of the box.
    """

    text: str
    pixels: Pixels
    box: NDArray[np.float32]
    ends: NDArray[np.float32]


class RecognitionLearner:
    """The recognition network, which learns to read words by the loss of CTC."""

    def __init__(self, device: torch.device, pages: int | None = None) -> None:
        self.network = new_recognizer(DEMO).to(memory_format=torch.channels_last)
        self._device = device
        self._printed = [
            word for seed in range(PAGES if pages is None else pages) for word in print_page(seed)
        ]
        # Longer words are drawn more often, so that every character is seen as often as any other: a single
        # wrong character makes a word wrong.
        lengths = np.array([len(printed.text) for printed in self._printed])
        self._shares = lengths / lengths.sum()

    def loss(self, random: np.random.Generator, progress: float) -> dict[str, Tensor]:
        """Return the loss on some of the words, cut as detection might have cut them."""
        texts, crops = [], []
        for index in random.choice(len(self._printed), BATCH, p=self._shares):
            text, crop = cut(random, self._printed[index])
            texts.append(text)
            crops.append(self._fit(crop))
        logits = self.network(self._pixels(np.stack(crops)), target=texts, return_model_output=True)[
            "out_map"
        ]
        return {"reading": self.network.compute_loss(logits.float(), texts)}

    def report(self) -> str:
        """Return the share of the words, cut at their true boxes, that are read without a mistake."""
        words, right = 0, 0
        for seed in range(FIRST_UNSEEN_SEED, FIRST_UNSEEN_SEED + UNSEEN_SCENES):
            scene = draw(seed, 480, 360, UNSEEN_PLAN)
            for drawn in scene.words:
                x_min, y_min, x_max, y_max = drawn.box.round().astype(int).tolist()
                words += 1
                right += self.read(scene.image[y_min : y_max + 1, x_min : x_max + 1]) == drawn.text
        return f"{right / words:.3f} of {words} words are right"

    def read(self, crop: Pixels) -> str:
        """Return what a crop uint8 [H,W,3] says, read as in the gateway."""
        pieces, last_overlap = split(crop)
        pixels = self._pixels(np.stack([self._fit(piece) for piece in pieces]))
        logits = self.network(pixels, return_model_output=True)["out_map"].float().cpu()
        probabilities, classes = logits.softmax(-1).max(-1)
        steps = Steps(classes.to(torch.int32).numpy(), probabilities.numpy())
        return merge(decode_ctc(steps, self.network.vocab), last_overlap).text

    def save(self, folder: Path) -> None:
        """Write the weights as the exporter reads them."""
        save_halves(self.network.state_dict(), folder / f"{DEMO.recognizer}.safetensors")

    def _fit(self, crop: Pixels) -> Pixels:
        _, height, width = self.network.cfg["input_shape"]
        return fit(crop, (height, width), centred=False)

    def _pixels(self, crops: Pixels) -> Tensor:
        return normalised(crops, self.network).to(self._device, memory_format=torch.channels_last)


def print_page(seed: int) -> list[Printed]:
    """Draw a page of nothing but words, and return them."""
    random = np.random.default_rng(seed)
    painter = Painter(random, *PAGE_SIZE)
    printed = []
    for _ in range(WORDS):
        text, name, size = word(random), list(FONTS)[random.integers(len(FONTS))], random.uniform(*FONT_SIZE)
        if painter.word(text, name, size):
            printed.append((text, name, size))
    scene = painter.scene(degraded=True)
    words = []
    for (text, name, size), drawn in zip(printed, scene.words, strict=True):
        letters = font(name, round(size * min(PAGE_SIZE) * OVERSAMPLING))
        left = letters.getbbox(text)[0]
        ends = [(letters.getlength(text[: count + 1]) - left) / OVERSAMPLING for count in range(len(text))]
        low = np.floor(drawn.box[:2] - MARGIN).astype(int).clip(0)
        high = np.ceil(drawn.box[2:] + MARGIN).astype(int)
        pixels = scene.image[low[1] : high[1], low[0] : high[0]].copy()
        box = (drawn.box - np.tile(low, 2)).astype(np.float32)
        words.append(Printed(text, pixels, box, np.array(ends, np.float32)))
    return words


def cut(random: np.random.Generator, printed: Printed) -> tuple[str, Pixels]:
    """Cut a word, or a piece of a wide one, as detection might. Return its text and its pixels."""
    text, box = printed.text, printed.box.astype(np.float64)
    width, height = box[2:] - box[:2]
    box += random.normal(OUTWARDS, DEVIATION, 4) * height * [-1, -1, 1, 1]
    if width > PIECE_RATIO * height and random.random() < (
        1 if width > MAX_CROP_RATIO * height else PIECES_SHARE
    ):
        piece = PIECE_RATIO * (box[3] - box[1])
        start = random.uniform(0, max(0.0, width - piece))
        text = visible(printed, start, start + piece)
        low = printed.box[0]
        # At the start of the word, the piece has the word's margin too.
        box[[0, 2]] = low + start if start else box[0], low + start + piece
    x_min, y_min, x_max, y_max = box.round().astype(int).clip(0).tolist()
    crop = printed.pixels[y_min : y_max + 1, x_min : x_max + 1]
    return text, varied(random, crop)


def visible(printed: Printed, low: float, high: float) -> str:
    """Return the characters that are seen between two places of the word, in pixels from its left side."""
    starts = np.concatenate([[0], printed.ends[:-1]])
    inside = np.minimum(printed.ends, high) - np.maximum(starts, low)
    is_seen = inside >= MIN_VISIBLE * (printed.ends - starts)
    return "".join(character for character, seen in zip(printed.text, is_seen, strict=True) if seen)


def varied(random: np.random.Generator, crop: Pixels) -> Pixels:
    """Return the crop in another contrast and brightness, sometimes smaller, sometimes as a negative."""
    scale = random.uniform(0.5, 1.0)
    if random.random() < 0.2 and crop.shape[0] * scale > 10:
        size = max(1, round(crop.shape[1] * scale)), round(crop.shape[0] * scale)
        crop = np.asarray(cv2.resize(crop, size, interpolation=cv2.INTER_AREA), np.uint8)
    values = crop.astype(np.float64)
    if random.random() < 0.3:
        values = 255 - values
    gains = random.uniform(0.7, 1.1) * random.uniform(0.93, 1.07, 3)
    values = (values - 128) * gains + 128 + random.uniform(-25, 25)
    return np.asarray(values.clip(0, 255), np.uint8)


def train_recognition(device: str, steps: int | None, states: Path, weights: Path) -> None:
    """Train the network and write its weights."""
    name = "doctr_recognition"
    train_family(RecognitionLearner, RECIPE, name, device=device, steps=steps, states=states, weights=weights)

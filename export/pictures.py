"""Pictures to compare a graph with its reference on, and the statistics that networks normalise pixels by."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from export.graph import Arrays

# ImageNet's mean and standard deviation of red, green and blue, as shares of 255. SAM, Grounding DINO and
# L2CS-Net use them.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def noise(seed: int, count: int, height: int, width: int) -> np.ndarray[Any, Any]:
    """Return pictures uint8 [count,H,W,3] of smooth colours with some noise."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (count, -(-height // 16), -(-width // 16), 3))
    smooth = coarse.repeat(16, axis=1).repeat(16, axis=2)[:, :height, :width]
    noisy = smooth + random.integers(-20, 21, smooth.shape)
    return noisy.clip(0, 255).astype(np.uint8)


def tinted_noise(seed: int, count: int, height: int, width: int) -> np.ndarray[Any, Any]:
    """Return pictures uint8 [count,H,W,3] of noise, each in a colour of its own.

    A deep network averages noise away, so its answers to noise alone are all the same.
    """
    pictures = noise(seed, count, height, width)
    colours = np.random.default_rng(seed).integers(0, 256, (count, 1, 1, 3))
    return (pictures * 0.4 + colours * 0.6).astype(np.uint8)


def noise_images(seed: int, height: int, width: int, valid: Sequence[tuple[int, int]]) -> Arrays:
    """Return a picture for every valid size (height, width). Noise is outside the valid area, too."""
    return {"image": noise(seed, len(valid), height, width), "valid_size": np.array(valid, np.int32)}


def text_images(seed: int, count: int, height: int, width: int) -> np.ndarray[Any, Any]:
    """Return pictures of text, uint8 [n,H,W,3], in a few sizes, colours and backgrounds, with some noise."""
    random = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        light, dark = random.integers(150, 256, 3), random.integers(0, 120, 3)
        picture = Image.new("RGB", (width, height), tuple(map(int, light)))
        canvas = ImageDraw.Draw(picture)
        y = int(random.integers(0, 1 + height // 8))
        while y < height:
            size = int(random.integers(max(8, height // 40), max(10, min(height, 2 + height // 12, 60))))
            font = ImageFont.load_default(size)
            x = int(random.integers(0, 1 + width // 8))
            while x < width:
                word = "".join(map(chr, random.integers(33, 127, random.integers(1, 12))))
                canvas.text((x, y), word, tuple(map(int, dark)), font)
                x += int(size * (0.7 * len(word) + random.uniform(0.5, 3)))
            y += int(size * random.uniform(1.2, 2.5))
        noisy = np.asarray(picture).astype(np.int64) + random.integers(-20, 21, (height, width, 3))
        images.append(noisy.clip(0, 255).astype(np.uint8))
    return np.stack(images)

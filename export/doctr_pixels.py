"""The pixels that docTR's networks see, and pictures of text to compare on."""

from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor


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


def normalised(images: np.ndarray[Any, Any], model: Any) -> Tensor:
    """Return uint8 [n,H,W,3] as docTR's PreProcessor gives them to a model: float32 [n,3,H,W]."""
    mean, std = (torch.tensor(model.cfg[name]).reshape(3, 1, 1) for name in ("mean", "std"))
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255) - mean) / std

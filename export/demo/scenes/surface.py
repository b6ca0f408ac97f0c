"""The surface under a scene, and what a camera makes of the whole picture."""

import io
import math

import cv2
import numpy as np
from PIL import Image

from export.demo.scenes.scene import Pixels


def background(random: np.random.Generator, width: int, height: int) -> Pixels:
    """Return a surface with little colour: a gradient, blotches, stripes, tiles or grain."""
    base = random.uniform(30, 235) + random.uniform(-14, 14, 3)
    other = base + random.uniform(-45, 45) + random.uniform(-10, 10, 3)
    kind = random.integers(5)
    if kind == 0:
        corners = random.uniform(0, 1, (2, 2))
        share = cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR)
    elif kind == 1:
        cells = int(random.integers(3, 12))
        share = cv2.resize(
            random.uniform(0, 1, (cells, cells)), (width, height), interpolation=cv2.INTER_CUBIC
        )
    else:
        angle, period = random.uniform(0, math.pi), random.uniform(0.04, 0.3) * min(width, height)
        y, x = np.mgrid[:height, :width].astype(np.float32)
        along = (x * math.cos(angle) + y * math.sin(angle)) / period
        across = (y * math.cos(angle) - x * math.sin(angle)) / period
        if kind == 2:
            share = 0.5 + 0.5 * np.sin(2 * math.pi * along)
        elif kind == 3:
            share = ((np.floor(along) + np.floor(across)) % 2).astype(np.float32)
        else:
            share = random.random((height // 2 + 1, width // 2 + 1), dtype=np.float32)
            share = cv2.resize(share, (width, height), interpolation=cv2.INTER_LINEAR)
    picture = base.astype(np.float32) + share[..., None].astype(np.float32) * (other - base).astype(
        np.float32
    )
    return np.asarray(picture.clip(0, 255), np.uint8)


def degrade(random: np.random.Generator, image: Pixels) -> Pixels:
    """Return the picture with the blur of a lens, the noise of a sensor, and the traces of compression."""
    side = min(image.shape[:2])
    blur = random.uniform(0, 0.004) * side
    if blur > 0.3:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), blur), np.uint8)
    noise = random.standard_normal(image.shape, np.float32) * np.float32(random.uniform(0, 9))
    image = (image + noise).clip(0, 255).astype(np.uint8)
    quality = int(random.integers(45, 96))
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))

"""What graphs do first with uint8 pixels, the same for their references, and pictures to compare on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from export.graph import Arrays

# ImageNet's, which transformers' processors of SAM and Grounding DINO both use.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class Normalise(nn.Module):
    """RGB bytes, NHWC, to normalised floats, NCHW."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).reshape(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Return the pixels [B,3,H,W]."""
        return (image.permute(0, 3, 1, 2).to(torch.float32) / 255 - self.mean) / self.std


class NormaliseValid(nn.Module):
    """The same for padded images: pixels outside the valid top-left area become zero.

    Zero comes after normalising, as in the reference processors: a zero byte is not a normalised zero.
    """

    def __init__(self) -> None:
        super().__init__()
        self.normalise = Normalise()

    def forward(self, image: Tensor, valid_size: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pixels [B,3,H,W] and the mask of the valid area [B,H,W]."""
        _, height, width, _ = image.shape
        rows = torch.arange(height, device=image.device)[None] < valid_size[:, :1]
        columns = torch.arange(width, device=image.device)[None] < valid_size[:, 1:]
        valid = rows[:, :, None] & columns[:, None, :]
        return torch.where(valid[:, None], self.normalise(image), 0.0), valid


def normalised(image: np.ndarray[Any, Any], valid_size: np.ndarray[Any, Any]) -> tuple[Tensor, Tensor]:
    """Return pixels and pixel mask as the reference processors make them: image by image, then padded."""
    pixels = np.zeros((len(image), 3, *image.shape[1:3]), np.float32)
    mask = np.zeros((len(image), *image.shape[1:3]), np.int64)
    for i, (height, width) in enumerate(valid_size):
        part = (image[i, :height, :width] / 255.0 - MEAN) / STD
        pixels[i, :, :height, :width] = part.transpose(2, 0, 1)
        mask[i, :height, :width] = 1
    return torch.from_numpy(pixels), torch.from_numpy(mask)


def noise(seed: int, count: int, height: int, width: int) -> np.ndarray[Any, Any]:
    """Return pictures uint8 [count,H,W,3] of smooth colours with some noise."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (count, -(-height // 16), -(-width // 16), 3))
    smooth = coarse.repeat(16, axis=1).repeat(16, axis=2)[:, :height, :width]
    noisy = smooth + random.integers(-20, 21, smooth.shape)
    return noisy.clip(0, 255).astype(np.uint8)


def noise_images(seed: int, height: int, width: int, valid: Sequence[tuple[int, int]]) -> Arrays:
    """Return an image for every valid size (height, width). Outside its valid area there is noise as well."""
    return {"image": noise(seed, len(valid), height, width), "valid_size": np.array(valid, np.int32)}

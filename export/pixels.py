"""The first step of graphs that take uint8 pixels, and the same step of their references."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from export.pictures import MEAN, STD


class Normalise(nn.Module):
    """Turns RGB bytes, NHWC, into normalised floats, NCHW."""

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

    They become zero after normalising, as in the reference processors: a zero byte is not a normalised zero.
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

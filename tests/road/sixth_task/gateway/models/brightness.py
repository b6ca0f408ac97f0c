"""Brightness: an image to the square that the network looks at."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from gateway.models.parameters import ParameterReader
from gateway.models.resizing import resize


@dataclass(frozen=True, slots=True)
class BrightnessSpec:
    """A variant's constants. image_size: side of the square input, in pixels."""

    image_size: int

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str], folder: Path) -> Self:
        """Read the parameters. ValueError names what is missing or wrong."""
        return cls(ParameterReader(parameters).whole_number("image_size", 1))

    @property
    def input_size(self) -> int:
        """Longest side, in pixels, that images are resized to."""
        return self.image_size

    def preprocess(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize uint8 [H, W, 3] to [S, S, 3]."""
        return resize(image, (self.image_size, self.image_size))

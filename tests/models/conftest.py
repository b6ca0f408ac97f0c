"""Pictures and vocabulary shared by the tests of the pure model code."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image


@pytest.fixture(scope="session")
def bert_vocabulary(data: Callable[[str], Path]) -> Path:
    return data("grounding_dino/bert-base-uncased-vocab.txt")


@pytest.fixture(scope="session")
def noise() -> Callable[[int, int], NDArray[np.uint8]]:
    """Smoothed colour noise of a height and width: every pixel differs, nothing is symmetric."""

    def make(height: int, width: int) -> NDArray[np.uint8]:
        rng = np.random.default_rng(height * 100_003 + width)
        small = rng.integers(0, 256, (max(1, height // 3), max(1, width // 3), 3), dtype=np.uint8)
        large = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(large)

    return make

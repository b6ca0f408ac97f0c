"""Pictures, and Grounding DINO's vocabulary, that the tests of the pure model code share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tokenizers import BertWordPieceTokenizer
from transformers import BertTokenizer, GroundingDinoImageProcessorPil, GroundingDinoProcessor

# Typed for subclasses of torch.Tensor that do not exist.
reference_processor: Any = GroundingDinoProcessor


@pytest.fixture(scope="session")
def bert_vocabulary(data: Callable[[str], Path]) -> Path:
    return data("grounding_dino/bert-base-uncased-vocab.txt")


@pytest.fixture(scope="session")
def grounding_dino_folder(bert_vocabulary: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder with the tokenizer of the real vocabulary."""
    folder = tmp_path_factory.mktemp("grounding_dino")
    BertWordPieceTokenizer(str(bert_vocabulary), lowercase=True).save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="session")
def grounding_dino_processor(bert_vocabulary: Path) -> Any:
    """transformers' processor, with the real vocabulary."""
    return reference_processor(GroundingDinoImageProcessorPil(), BertTokenizer(vocab=str(bert_vocabulary)))


@pytest.fixture(scope="session")
def noise() -> Callable[[int, int], NDArray[np.uint8]]:
    """Smoothed colour noise of a height and width: every pixel differs, nothing is symmetric."""

    def make(height: int, width: int) -> NDArray[np.uint8]:
        rng = np.random.default_rng(height * 100_003 + width)
        small = rng.integers(0, 256, (max(1, height // 3), max(1, width // 3), 3), dtype=np.uint8)
        large = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(large)

    return make

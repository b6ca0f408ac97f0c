"""Toy models: the PyTorch models of the session's exported files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from export import grounding_dino, sam, sam2
from export.graph import Arrays
from export.sam_decoder import PADDING
from export.weights import Options

TINY = Options(weights="random", size="tiny")
TOY_CLIP: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 32, "head_width": 16, "layers": 1},
    "text_cfg": {"context_length": 20, "vocab_size": 49_408, "width": 32, "heads": 2, "layers": 1},
}


@dataclass(frozen=True)
class Exported:
    """The PyTorch model, and how to run the ONNX files made of it."""

    model: Any
    repository: Path
    run: Callable[[str, Arrays], Arrays]

    def file(self, name: str) -> Path:
        """The ONNX file of this name."""
        return self.repository / name / "1" / "model.onnx"


def runner(repository: Path) -> Callable[[str, Arrays], Arrays]:
    """A function that runs a model of the repository; each is loaded once."""

    @cache
    def session(name: str) -> onnxruntime.InferenceSession:
        path = repository / name / "1" / "model.onnx"
        return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(name: str, inputs: Arrays) -> Arrays:
        names = [output.name for output in session(name).get_outputs()]
        return dict(zip(names, session(name).run(names, inputs), strict=True))

    return run


def prompt_inputs(
    random: np.random.Generator,
    labels: Sequence[int],
    *,
    batch: int,
    count: int,
    masks: int = 1,
    given: float = 0,
) -> Arrays:
    """Inputs of a toy's decoder: `count` prompts for every image, each mask with the chance `given`."""
    points = random.uniform(0, 128, (batch, count, len(labels), 2))
    points[..., np.array(labels) == PADDING, :] = 0
    return {
        "points": points.astype(np.float32),
        "labels": np.broadcast_to(np.array(labels, np.int32), (batch, count, len(labels))).copy(),
        "mask_input": random.normal(0, 8, (batch, masks, 32, 32)).astype(np.float32),
        "has_mask_input": random.uniform(size=(batch, masks)) < given,
    }


@pytest.fixture(scope="session")
def tiny_sam(tiny_repository: Path) -> Exported:
    return Exported(sam.build(TINY)[0], tiny_repository, runner(tiny_repository))


@pytest.fixture(scope="session")
def tiny_sam2(tiny_repository: Path) -> Exported:
    return Exported(sam2.build(TINY)[0], tiny_repository, runner(tiny_repository))


@pytest.fixture(scope="session")
def tiny_grounding_dino(tiny_repository: Path) -> Exported:
    model, _, _ = grounding_dino.build(TINY)
    return Exported(model, tiny_repository, runner(tiny_repository))


@pytest.fixture
def toy_clip(monkeypatch: pytest.MonkeyPatch) -> str:
    """A small model that open_clip knows by name, with published weights of both activations."""
    import open_clip

    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Toy-32", TOY_CLIP)
    tags = {
        "openai": {"hf_hub": "some/toy/", "quick_gelu": True},
        "other": {
            "hf_hub": "some/other/weights.bin",
            "mean": (0.1, 0.2, 0.3),
            "std": (0.4, 0.5, 0.6),
            "interpolation": "bilinear",
            "resize_mode": "squash",
        },
    }
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "Toy-32", tags)
    return "Toy-32"


def activation(model: Any) -> str:
    """The name of the activation of an open_clip model's image tower."""
    return type(model.visual.transformer.resblocks[0].mlp.gelu).__name__

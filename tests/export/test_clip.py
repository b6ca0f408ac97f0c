from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from export import clip, clip_weights, onnx_file
from export.graph import Arrays, Export
from export.half import Precision
from export.parity import difference
from export.weights import Options, randomise

from .conftest import TINY, TOY_CLIP, activation, runner

Run = Callable[[str, Arrays], np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def tiny() -> Any:
    return clip_weights.build(TINY)[0]


@pytest.fixture(scope="module")
def run_tiny(tiny_repository: Path) -> Run:
    run = runner(tiny_repository)

    def embeddings(name: str, inputs: Arrays) -> np.ndarray[Any, Any]:
        (output,) = run(name, inputs).values()
        return np.asarray(output)

    return embeddings


@torch.no_grad()
def test_towers_equal_open_clip(
    tiny: Any, run_tiny: Run, photo: Callable[[str], np.ndarray[Any, np.dtype[np.uint8]]]
) -> None:
    """From pixels of the right size: open_clip's transform, tokenizer and model."""
    transform = image_transform_v2(PreprocessCfg(**tiny.visual.preprocess_cfg), is_train=False)
    squares = [
        Image.fromarray(photo(name)).resize((64, 64)) for name in ("truck.jpg", "skimage_astronaut.png")
    ]
    expected = tiny.encode_image(torch.stack([transform(square) for square in squares])).numpy()
    actual = run_tiny("clip_image", {"image": np.stack([np.asarray(square) for square in squares])})
    assert difference(actual, expected) < 1e-5 * np.abs(expected).max()
    ids = open_clip.tokenize(["a truck", "an astronaut in front of a flag", "word " * 90])
    expected = tiny.encode_text(ids).numpy()
    actual = run_tiny("clip_text", {"input_ids": ids.numpy()})
    assert difference(actual, expected) < 1e-5 * np.abs(expected).max()


def test_embeddings_of_seeded_weights_differ(run_tiny: Run) -> None:
    """Otherwise agreement with the reference would prove nothing."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (4, 8, 8, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    texts = open_clip.tokenize(["a truck", "an astronaut", "two dogs", "rain"]).numpy()
    for rows in (run_tiny("clip_image", {"image": images}), run_tiny("clip_text", {"input_ids": texts})):
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        assert (unit @ unit.T)[~np.eye(4, dtype=bool)].max() < 0.98
        assert np.linalg.norm(rows, axis=1).min() > 1


def test_items_of_a_batch_do_not_see_each_other(run_tiny: Run) -> None:
    texts = open_clip.tokenize(["a truck", "an astronaut", "two dogs"]).numpy()
    together = run_tiny("clip_text", {"input_ids": texts})
    for row, text in zip(together, texts, strict=True):
        np.testing.assert_allclose(run_tiny("clip_text", {"input_ids": text[None]})[0], row, atol=1e-5)


def test_the_gateway_reads_what_is_written(tiny: Any, tiny_repository: Path) -> None:
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    from gateway.models.clip import ClipSpec

    parameters: dict[str, str] = {}
    for name in ("clip_text", "clip_image"):
        text = (tiny_repository / name / "config.pbtxt").read_text()
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
        parameters |= {key: value.string_value for key, value in config.parameters.items()}
    spec = ClipSpec.from_parameters(parameters, tiny_repository / "clip_text")
    assert (spec.image_size, spec.context_length, spec.embedding_size) == (64, 77, 32)
    assert spec.logit_scale == pytest.approx(tiny.logit_scale.exp().item(), rel=1e-5)
    assert spec.logit_scale == pytest.approx(100)
    assert (spec.resize_mode, spec.interpolation) == ("shortest", "bicubic")
    assert (parameters["family"], parameters["variant"]) == ("clip", "tiny")


def test_a_resnet_with_attention_pooling_exports(tmp_path: Path) -> None:
    vision = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None}
    model = open_clip.CLIP(**TOY_CLIP | {"vision_cfg": vision, "quick_gelu": True})
    torch.manual_seed(0)
    randomise(model)
    open_clip.model.set_model_preprocess_cfg(model, {**vars(PreprocessCfg()), "size": 64})
    assert type(model.visual.attnpool).__name__ == "AttentionPool2d"
    [image_tower, _] = clip.describe(model.eval(), "toy").graphs
    [placed] = onnx_file.place(Export([image_tower]), tmp_path)
    assert placed.error < 1e-5
    image = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)
    [embeddings] = runner(tmp_path)("clip_image", {"image": image}).values()
    assert embeddings.shape == (5, 24)


def test_weights_decide_activation_and_preparation(toy_clip: str) -> None:
    model, variant = clip_weights.build(Options(weights="random", variant=f"{toy_clip}:openai"))
    assert (variant, activation(model)) == ("toy_32_openai", "QuickGELU")
    assert model.visual.preprocess_cfg["resize_mode"] == "shortest"
    assert model.logit_scale.exp().item() == pytest.approx(100)
    model, variant = clip_weights.build(Options(weights="random", variant=f"{toy_clip}:other"))
    assert (variant, activation(model)) == ("toy_32_other", "GELU")
    image = clip.describe(model, variant).graphs[0]
    assert image.parameters["resize_mode"] == "squash"
    assert image.parameters["interpolation"] == "bilinear"
    module: Any = image.module
    assert module.normalise.mean.ravel().tolist() == pytest.approx([0.1, 0.2, 0.3])
    text = clip.describe(model, variant).graphs[1]
    assert text.parameters["context_length"] == "20"
    assert text.inputs["input_ids"].shape == (2, 20)


@pytest.mark.long
def test_half_precision(toy_clip: str, tmp_path: Path) -> None:
    described = clip.describe(*clip_weights.build(Options(weights="random", variant=f"{toy_clip}:openai")))
    placed = onnx_file.place(described, tmp_path, precision=Precision.fp16)
    assert [one.model for one in placed] == ["clip_image", "clip_text"]
    assert 0 < max(one.error for one in placed) < 5e-3

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file

from export import clip, onnx_file
from export.errors import ExportError
from export.half import Precision
from export.onnx_file import Arrays
from export.parity import difference
from export.weights import Options, randomise

TINY = Options(weights="random", size="tiny")
TOY: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 32, "head_width": 16, "layers": 1},
    "text_cfg": {"context_length": 20, "vocab_size": 49_408, "width": 32, "heads": 2, "layers": 1},
}
Run = Callable[[str, Arrays], np.ndarray[Any, Any]]


def export(model: Any, variant: str, repository: Path) -> Run:
    placed = onnx_file.place(clip.describe(model, variant), repository)
    assert max(one.error for one in placed) < 1e-5
    sessions = {one.model: onnxruntime.InferenceSession(str(one.path)) for one in placed}

    def run(name: str, inputs: Arrays) -> np.ndarray[Any, Any]:
        (output,) = sessions[name].run(None, inputs)
        return np.asarray(output)

    return run


@pytest.fixture(scope="module")
def tiny() -> Any:
    return clip.build(TINY)[0]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("repository")


@pytest.fixture(scope="module")
def run_tiny(tiny: Any, repository: Path) -> Run:
    return export(tiny, "tiny", repository)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> str:
    """A small model that open_clip knows by name, with published weights of both activations."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Toy-32", TOY)
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


def test_the_gateway_reads_what_is_written(tiny: Any, run_tiny: Run, repository: Path) -> None:
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    from gateway.models.clip import ClipSpec

    parameters: dict[str, str] = {}
    for name in ("clip_text", "clip_image"):
        text = (repository / name / "config.pbtxt").read_text()
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
        parameters |= {key: value.string_value for key, value in config.parameters.items()}
    spec = ClipSpec.from_parameters(parameters, repository / "clip_text")
    assert (spec.image_size, spec.context_length, spec.embedding_size) == (64, 77, 32)
    assert spec.logit_scale == pytest.approx(tiny.logit_scale.exp().item(), rel=1e-5)
    assert spec.logit_scale == pytest.approx(100)
    assert (spec.resize_mode, spec.interpolation) == ("shortest", "bicubic")
    assert (parameters["family"], parameters["variant"]) == ("clip", "tiny")


def test_a_resnet_with_attention_pooling_exports(tmp_path: Path) -> None:
    vision = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None}
    model = open_clip.CLIP(**TOY | {"vision_cfg": vision, "quick_gelu": True})
    torch.manual_seed(0)
    randomise(model)
    open_clip.model.set_model_preprocess_cfg(model, {**vars(PreprocessCfg()), "size": 64})
    assert type(model.visual.attnpool).__name__ == "AttentionPool2d"
    run = export(model.eval(), "toy", tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)
    assert run("clip_image", {"image": image}).shape == (5, 24)


def test_openais_variants_are_all_of_quick_gelu() -> None:
    for variant in clip.VARIANTS:
        source = clip.parse_variant(variant)
        assert source.variant == variant
        assert clip._tag_settings(source)["quick_gelu"] is True
        assert open_clip.get_model_config(source.name) is not None
    assert next(iter(clip.VARIANTS)) == "vit_b_32"


@pytest.mark.parametrize(
    ("text", "weights", "name", "tag", "variant"),
    [
        ("vit_l_14", "hub", "ViT-L-14", "openai", "vit_l_14"),
        ("ViT-B-32:laion2b_s34b_b79k", "hub", "ViT-B-32", "laion2b_s34b_b79k", "vit_b_32_laion2b_s34b_b79k"),
        ("ViT-B-32-256", "hub", "ViT-B-32-256", "datacomp_s34b_b86k", "vit_b_32_256"),
        ("ViT-B-16", "random", "ViT-B-16", "", "vit_b_16"),
        ("RN50-quickgelu:cc12m", "hub", "RN50-quickgelu", "cc12m", "rn50_quickgelu_cc12m"),
    ],
)
def test_names_of_variants(text: str, weights: str, name: str, tag: str, variant: str) -> None:
    assert clip.parse_variant(text, weights) == clip.Source(name, tag, variant)


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        (
            "vit_x",
            "There is no variant 'vit_x'; there are vit_b_32, .*, rn50x64, and open_clip's as NAME:TAG",
        ),
        ("ViT-B-32", r"Say which weights of ViT-B-32: ViT-B-32:TAG, of the tags openai, laion400m_e31, "),
        ("ViT-B-32:nothing", "ViT-B-32 has no weights 'nothing'; there are openai, "),
        ("ViT-S-32", "Say which weights of ViT-S-32: .* of the tags none"),
        ("ViT-B-16-SigLIP:webli", "ViT-B-16-SigLIP has a tokenizer of its own"),
        ("xlm-roberta-base-ViT-B-32:laion5b_s13b_b90k", "has a tokenizer of its own"),
        ("coca_ViT-B-32:laion2b_s13b_b90k", "coca_ViT-B-32 writes captions"),
    ],
)
def test_variants_that_cannot_be(variant: str, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        clip.build(Options(variant=variant))


def activation(model: Any) -> str:
    return type(model.visual.transformer.resblocks[0].mlp.gelu).__name__


def test_weights_decide_activation_and_preparation(toy: str) -> None:
    model, variant = clip.build(Options(weights="random", variant=f"{toy}:openai"))
    assert (variant, activation(model)) == ("toy_32_openai", "QuickGELU")
    assert model.visual.preprocess_cfg["resize_mode"] == "shortest"
    assert model.logit_scale.exp().item() == pytest.approx(100)
    model, variant = clip.build(Options(weights="random", variant=f"{toy}:other"))
    assert (variant, activation(model)) == ("toy_32_other", "GELU")
    image = clip.describe(model, variant).graphs[0]
    assert image.parameters["resize_mode"] == "squash"
    assert image.parameters["interpolation"] == "bilinear"
    module: Any = image.module
    assert module.mean.ravel().tolist() == pytest.approx([0.1, 0.2, 0.3])
    text = clip.describe(model, variant).graphs[1]
    assert text.parameters["context_length"] == "20"
    assert text.inputs["input_ids"].shape == (2, 20)


def test_half_precision(toy: str, tmp_path: Path) -> None:
    described = clip.describe(*clip.build(Options(weights="random", variant=f"{toy}:openai")))
    placed = onnx_file.place(described, tmp_path, precision=Precision.fp16)
    assert [one.model for one in placed] == ["clip_image", "clip_text"]
    assert 0 < max(one.error for one in placed) < 5e-3


def test_seeds(toy: str) -> None:
    one, same, other = (
        clip.build(Options(weights="random", variant=toy, seed=seed))[0].visual.proj for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_hub_weights_are_fetched_by_tag(toy: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trained, _ = clip.build(Options(weights="random", variant=toy, seed=5))
    file = tmp_path / "open_clip_model.safetensors"
    save_file(trained.state_dict(), file)
    asked = []

    def fetch(repository: str, filename: str | None = None, revision: str | None = None, **_: Any) -> str:
        asked.append((repository, filename, revision))
        return str(file)

    monkeypatch.setattr(open_clip.pretrained, "download_pretrained_from_hf", fetch)
    model, _ = clip.build(Options(variant=f"{toy}:openai"))
    assert torch.equal(model.visual.proj, trained.visual.proj)
    assert activation(model) == "QuickGELU"
    clip.build(Options(variant=f"{toy}:openai", revision="abc"))
    clip.build(Options(variant=f"{toy}:other", revision="v2"))
    assert asked == [
        ("some/toy", None, None),
        ("some/toy", None, "abc"),
        ("some/other", "weights.bin", "v2"),
    ]


def test_the_hub_failing_is_one_sentence(toy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: Any, **_kwargs: Any) -> str:
        raise FileNotFoundError("no route\nmore")

    monkeypatch.setattr(open_clip.pretrained, "download_pretrained_from_hf", fail)
    with pytest.raises(ExportError, match=r"^Cannot fetch Toy-32:openai: no route\.$"):
        clip.build(Options(variant=f"{toy}:openai"))


def test_local_files_are_loaded(tiny: Any, tmp_path: Path) -> None:
    state = tiny.state_dict()
    save_file(state, tmp_path / "weights.safetensors")
    torch.save(state, tmp_path / "weights.pt")
    # What a training run leaves.
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}},
        tmp_path / "epoch_3.pt",
    )
    for file in tmp_path.iterdir():
        loaded, variant = clip.build(replace(TINY, weights=str(file), seed=9))
        assert variant == "tiny"
        assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in state.items())


class Code:
    def __reduce__(self) -> Any:
        return os.mkdir, ("code-was-run",)


def test_files_that_do_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weights": Code()}, "code.pt")
    torch.save({"weights": torch.zeros(2)}, "other.pt")
    Path("garbage.safetensors").write_bytes(b"garbage")
    for file, message in (
        ("code.pt", "code.pt cannot be loaded: it holds more than weights, which could run any code"),
        ("other.pt", "other.pt cannot be loaded: it holds the weights of another model"),
        ("garbage.safetensors", "garbage.safetensors cannot be loaded: "),
        ("nothing.pt", "nothing.pt is not a file; --weights takes hub, random or a file of weights"),
    ):
        with pytest.raises(ExportError, match=message):
            clip.build(replace(TINY, weights=file))
    assert not Path("code-was-run").exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_openais_own_file_is_a_program(tmp_path: Path) -> None:
    file = str(tmp_path / "ViT-B-32.pt")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), file)
    with pytest.raises(ExportError, match="it is a TorchScript program, not weights; the hub has OpenAI's"):
        clip.build(replace(TINY, weights=file))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (replace(TINY, weights="hub"), "The hub has no tiny weights"),
        (replace(TINY, revision="abc"), "--revision is of the hub"),
    ],
)
def test_options_that_do_not_fit(options: Options, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        clip.build(options)

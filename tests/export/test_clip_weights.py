import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from export import clip_weights
from export.errors import ExportError
from export.families.clip import FAMILY
from export.weights import Options

from .conftest import TINY, activation


@pytest.fixture(scope="module")
def tiny() -> Any:
    return clip_weights.build(TINY)[0]


def test_openais_variants_are_all_of_quick_gelu() -> None:
    for variant in FAMILY.variants:
        source = clip_weights.parse_variant(variant)
        assert source.variant == variant
        assert clip_weights._tag_settings(source)["quick_gelu"] is True
        assert open_clip.get_model_config(source.name) is not None
    assert FAMILY.variants[0] == "vit_b_32"


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
    assert clip_weights.parse_variant(text, weights) == clip_weights.Source(name, tag, variant)


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
        clip_weights.build(Options(variant=variant))


def test_seeds(toy_clip: str) -> None:
    one, same, other = (
        clip_weights.build(Options(weights="random", variant=toy_clip, seed=seed))[0].visual.proj
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_hub_weights_are_fetched_by_tag(
    toy_clip: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trained, _ = clip_weights.build(Options(weights="random", variant=toy_clip, seed=5))
    file = tmp_path / "open_clip_model.safetensors"
    save_file(trained.state_dict(), file)
    asked = []

    def fetch(repository: str, filename: str | None = None, revision: str | None = None, **_: Any) -> str:
        asked.append((repository, filename, revision))
        return str(file)

    monkeypatch.setattr(open_clip.pretrained, "download_pretrained_from_hf", fetch)
    model, _ = clip_weights.build(Options(variant=f"{toy_clip}:openai"))
    assert torch.equal(model.visual.proj, trained.visual.proj)
    assert activation(model) == "QuickGELU"
    clip_weights.build(Options(variant=f"{toy_clip}:openai", revision="abc"))
    clip_weights.build(Options(variant=f"{toy_clip}:other", revision="v2"))
    assert asked == [
        ("some/toy", None, None),
        ("some/toy", None, "abc"),
        ("some/other", "weights.bin", "v2"),
    ]


def test_the_hub_failing_is_one_sentence(toy_clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: Any, **_kwargs: Any) -> str:
        raise FileNotFoundError("no route\nmore")

    monkeypatch.setattr(open_clip.pretrained, "download_pretrained_from_hf", fail)
    with pytest.raises(ExportError, match=r"^Cannot fetch Toy-32:openai: no route\.$"):
        clip_weights.build(Options(variant=f"{toy_clip}:openai"))


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
        loaded, variant = clip_weights.build(replace(TINY, weights=str(file), seed=9))
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
            clip_weights.build(replace(TINY, weights=file))
    assert not Path("code-was-run").exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_openais_own_file_is_a_program(tmp_path: Path) -> None:
    file = str(tmp_path / "ViT-B-32.pt")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), file)
    with pytest.raises(ExportError, match="it is a TorchScript program, not weights; the hub has OpenAI's"):
        clip_weights.build(replace(TINY, weights=file))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (replace(TINY, weights="hub"), "The hub has no tiny weights"),
        (replace(TINY, revision="abc"), "--revision is for the hub"),
    ],
)
def test_options_that_do_not_fit(options: Options, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        clip_weights.build(options)

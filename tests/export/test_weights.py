import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, SamModel

from export import grounding_dino, sam, weights
from export.errors import ExportError
from export.families import DEFAULT_SET, FAMILIES
from export.weights import Options


def tiny(**options: Any) -> Options:
    return Options(**{"weights": "random", "size": "tiny", **options})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hub_layout")
    sam.build(tiny(seed=5))[0].save_pretrained(path)
    return path


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_a_seed_is_its_weights() -> None:
    one, same, other = (sam.build(tiny(seed=seed))[0].state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)


def test_random_weights_leave_the_callers_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    sam.build(tiny())
    assert torch.equal(torch.rand(3), expected)


def test_a_folder_of_the_hubs_layout(folder: Path) -> None:
    model, variant = sam.build(Options(weights=str(folder)))
    expected = sam.build(tiny(seed=5))[0].state_dict()
    assert variant == "tiny"
    assert not model.training
    assert model.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_the_hub_is_asked_for_safetensors_of_a_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []
    config = SimpleNamespace(model_type="sam")
    model = sam.build(tiny())[0]

    def from_pretrained(name: str, **arguments: Any) -> Any:
        asked.append((name, arguments))
        return model, {"missing_keys": set(), "mismatched_keys": set()}

    monkeypatch.setattr(AutoConfig, "from_pretrained", lambda name, **arguments: config)
    monkeypatch.setattr(SamModel, "from_pretrained", from_pretrained)
    assert sam.build(Options(variant="vit_h", revision="abc")) == (model, "vit_h")
    [(name, arguments)] = asked
    assert name == "facebook/sam-vit-huge"
    assert arguments["revision"] == "abc"
    assert arguments["use_safetensors"] is True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(weights="random", variant="vit_x"), "no variant 'vit_x'; there are vit_b, vit_l, vit_h"),
        (tiny(weights="hub"), "The hub has no tiny weights"),
        (tiny(revision="main"), "--revision is for the hub"),
        (Options(weights="/nowhere/at/all"), "/nowhere/at/all is not a folder"),
    ],
)
def test_options_that_cannot_be(options: Options, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        sam.build(options)


def test_pickled_weights_are_refused(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    torch.save(weights, copy / "pytorch_model.bin")
    with pytest.raises(ExportError, match="only pickled weights, which can run any code"):
        sam.build(Options(weights=str(copy)))


def test_a_folder_without_weights(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(ExportError, match=r"has no weights; model.safetensors is needed"):
        sam.build(Options(weights=str(copy)))


def test_a_folder_without_config(copy: Path) -> None:
    (copy / "config.json").unlink()
    with pytest.raises(ExportError, match=r"has no config.json"):
        sam.build(Options(weights=str(copy)))


def test_damaged_weights(copy: Path) -> None:
    (copy / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(ExportError, match="Cannot load"):
        sam.build(Options(weights=str(copy)))


def test_missing_weights_are_not_made_up(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    del weights["mask_decoder.iou_token.weight"]
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ExportError, match=r"lacks weights \(1, the first is mask_decoder.iou_token.weight\)"):
        sam.build(Options(weights=str(copy)))


def test_another_variant_than_asked(folder: Path) -> None:
    with pytest.raises(ExportError, match="holds tiny, not vit_l"):
        sam.build(Options(weights=str(folder), variant="vit_l"))


def test_another_architecture(folder: Path) -> None:
    with pytest.raises(ExportError, match="holds a sam model, not grounding-dino"):
        grounding_dino.build(Options(weights=str(folder)))


@pytest.mark.parametrize("family", DEFAULT_SET)
def test_missing_demo_weights_say_how_to_make_them(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "DEMO_WEIGHTS", tmp_path)
    with pytest.raises(ExportError, match=f"visiongate demo train {family}"):
        FAMILIES[family].prepare(Options(weights="demo"))

"""The fingerprint that tells the models of one export: what it depends on, and where it is written."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from export import clip, fingerprint, triton_config
from export.demo.serving import REPOSITORY
from export.errors import ExportError
from export.onnx_file import place
from export.weights import Options
from gateway.pipelines.embedding import CLIP
from gateway.variant_loading import VariantError, check_agreement

ONE_LINE = """# Tuned by hand.
max_batch_size: 8
parameters { key: "family" value { string_value: "toy" } }
"""


def parameters(model: Path) -> dict[str, str]:
    path = model / "config.pbtxt"
    config = triton_config.parse(path.read_text(encoding="utf-8"), path)
    return {name: value.string_value for name, value in config.parameters.items()}


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    for name in ("toy_a", "toy_b"):
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "1" / "model.onnx").write_text(name)
        (tmp_path / name / "config.pbtxt").write_text(ONE_LINE)
    (tmp_path / "toy_a" / "tokenizer.json").write_text("{}")
    return [tmp_path / "toy_a", tmp_path / "toy_b"]


def test_it_is_of_all_files_and_their_names_alone(models: list[Path]) -> None:
    before = fingerprint.of(models)
    assert len(bytes.fromhex(before)) == 16
    (models[0] / "config.pbtxt").write_text("max_batch_size: 9")
    assert fingerprint.of(reversed(models)) == before
    (models[0] / "warmup").mkdir()
    (models[0] / "warmup" / "1-x").write_bytes(b"\1")
    assert fingerprint.of(models) == before
    (models[1] / "1" / "model.onnx").write_text("toy_c")
    weights = fingerprint.of(models)
    (models[0] / "tokenizer.json").write_text("[]")
    tokenizer = fingerprint.of(models)
    (models[1] / "1" / "model.onnx").rename(models[1] / "1" / "model.plan")
    assert len({before, weights, tokenizer, fingerprint.of(models)}) == 4


@pytest.mark.parametrize(
    "text",
    [
        ONE_LINE,
        ONE_LINE.replace("\n", "\n\n"),
        'max_batch_size: 8\nparameters {\n  key: "family"\n  value {\n    string_value: "toy"\n  }\n}\n',
        "max_batch_size: 8",
    ],
)
def test_a_config_keeps_its_text(text: str) -> None:
    path = Path("config.pbtxt")
    once = triton_config.with_fingerprint(text, "12ab", path)
    assert once.startswith(text.rstrip("\n"))
    assert triton_config.parse(once, path).parameters["export"].string_value == "12ab"
    assert triton_config.with_fingerprint(once, "34cd", path) == once.replace("12ab", "34cd")
    assert "parameters {\n" not in once or 'parameters { key: "export"' not in once


@pytest.mark.parametrize(
    "text", ['# parameters { key: "export" value { string_value: "x" } }', "input {", "no config"]
)
def test_a_config_that_is_not_understood_is_named(text: str) -> None:
    with pytest.raises(ExportError, match=r"models/toy/config.pbtxt"):
        triton_config.with_fingerprint(text, "12ab", Path("models/toy/config.pbtxt"))


def test_the_demo_repository_has_the_fingerprints_of_its_files() -> None:
    """After a change of its files: python -m export.fingerprint export/demo/repository."""
    exports = fingerprint.exports(REPOSITORY)
    assert sorted(len(models) for models in exports) == [1, 1, 1, 2, 2, 2]
    for models in exports:
        assert {parameters(model)["export"] for model in models} == {fingerprint.of(models)}


def test_a_repository_changed_by_hand_is_marked_anew(models: list[Path], monkeypatch: Any) -> None:
    folder = models[0].parent
    shutil.copytree(models[0], folder / "toy_a-large")
    monkeypatch.setattr("sys.argv", ["fingerprint", str(folder)])
    fingerprint.main()
    first = parameters(models[0])["export"]
    assert parameters(models[1])["export"] == first
    assert parameters(folder / "toy_a-large")["export"] == fingerprint.of([folder / "toy_a-large"]) != first
    (models[1] / "1" / "model.onnx").write_text("new")
    fingerprint.main()
    assert parameters(models[0])["export"] == parameters(models[1])["export"] != first


@pytest.mark.long
def test_halves_of_two_exports_of_one_variant_are_told_apart(tiny_repository: Path, tmp_path: Path) -> None:
    """All but the weights is the same: their tensors fit, and cosines between them mean nothing."""
    other = clip.prepare(Options(weights="random", size="tiny", seed=1))
    # The comparison with PyTorch is another test's.
    place(replace(other, graphs=[replace(graph, cases=graph.cases[:1]) for graph in other.graphs]), tmp_path)

    def check(image: Path, text: Path) -> None:
        folders = {"clip_image": image, "clip_text": text}
        check_agreement((CLIP, ""), {name: parameters(folder / name) for name, folder in folders.items()})

    for repository in (tiny_repository, tmp_path):
        check(repository, repository)
        models = [repository / role.name for role in CLIP.roles]
        assert {parameters(model)["export"] for model in models} == {fingerprint.of(models)}
    for image, text in ((tiny_repository, tmp_path), (tmp_path, tiny_repository)):
        with pytest.raises(VariantError, match="are not of one export: parameter export is"):
            check(image, text)

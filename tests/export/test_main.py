from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from export import sam
from export.__main__ import EXPORTERS, app
from export.onnx_file import Arrays, Export

from .conftest import Exported


def export(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_help_teaches() -> None:
    code, output, _ = export("--help")
    assert code == 0
    for word in (*EXPORTERS, "swin_b", "vit_h", "random", "--revision", "--vocabulary", "fp16", "tiny"):
        assert word in output


def test_half_precision_and_what_comes_next(tmp_path: Path) -> None:
    code, output, errors = export("sam", "--size", "tiny", "--precision", "fp16", "--out", tmp_path)
    assert (code, errors) == (0, "")
    assert "sam_decoder: compare with PyTorch" in output
    assert "sam_encoder: 0." in output
    assert "peak memory" in output
    assert f"In {tmp_path}: sam_decoder, sam_encoder\n" in output
    assert output.endswith(f"\nNext: visiongate up --repository {tmp_path}\n")
    missing = [line for line in output.splitlines() if line.startswith("Missing for ")]
    option = f"--size tiny --repository {tmp_path}"
    assert f"Missing for text: doctr; to add it: visiongate export doctr {option}" in missing
    assert not any("sam" in line for line in missing)
    assert {path.name for path in tmp_path.iterdir()} == {"sam_encoder", "sam_decoder"}


def test_a_difference_is_one_sentence_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_sam: Exported
) -> None:
    def wrong(model: Any, inputs: Arrays, outputs: Arrays) -> Arrays:
        return {name: value + 1 for name, value in outputs.items()}

    monkeypatch.setattr(sam, "decoder_reference", wrong)
    prepare = sam.prepare

    # The encoder takes seconds to export, and is tested elsewhere.
    def decoder_only(options: Any) -> Any:
        return Export([graph for graph in prepare(options).graphs if graph.model == "sam_decoder"])

    monkeypatch.setattr(sam, "prepare", decoder_only)
    code, _, errors = export("sam", "--size", "tiny", "--out", tmp_path / "new")
    assert code == 1
    assert errors.startswith("Error: sam_decoder differs from PyTorch: m")
    assert errors.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clap"], "Error: There is no model 'clap'; there are "),
        (
            ["sam", "--variant", "vit_x", "--weights", "random"],
            "Error: There is no variant 'vit_x'; there are vit_b",
        ),
        (
            ["sam", "grounding_dino", "--variant", "vit_b"],
            "Error: --variant, --revision and a folder of weights are of one model",
        ),
        (["sam", "--weights", "/nowhere"], "Error: /nowhere is not a folder; --weights takes hub, random or"),
        (["sam", "--size", "tiny", "--weights", "hub"], "Error: The hub has no tiny weights"),
    ],
)
def test_mistakes(tmp_path: Path, arguments: list[str], message: str) -> None:
    code, _, errors = export(*arguments, "--out", tmp_path / "new")
    assert code == 1
    assert errors.startswith(message)
    assert errors.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_an_unexpected_error_is_one_sentence_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(_options: Any) -> None:
        raise MemoryError("no room\nat all")

    monkeypatch.setattr(sam, "prepare", fail)
    assert export("sam", "--out", tmp_path)[2] == "Error: MemoryError: no room\n"
    result = CliRunner().invoke(app, ["sam", "--out", str(tmp_path), "--traceback"])
    assert isinstance(result.exception, MemoryError)

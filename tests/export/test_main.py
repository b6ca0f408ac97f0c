import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from export import sam
from export.__main__ import app
from export.errors import ExportError
from export.families import FAMILIES
from export.graph import Arrays, Export
from export.placing import reserved
from gateway import extras

from .conftest import Exported


def export(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_help_teaches() -> None:
    code, output, _ = export("--help")
    assert code == 0
    for word in (
        *FAMILIES,
        "swin_t",
        "vit_b",
        "random",
        "--list",
        "--revision",
        "--vocabulary",
        "fp16",
        "tiny",
    ):
        assert word in output


def test_half_precision_and_what_comes_next(tmp_path: Path) -> None:
    code, output, errors = export("sam", "--size", "tiny", "--precision", "fp16", "--out", tmp_path)
    assert (code, errors) == (0, "")
    assert "sam: load PyTorch and the weights" in output
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
    assert errors.startswith("error: sam_decoder differs from PyTorch: m")
    assert errors.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clap"], "error: There is no model 'clap'; there are "),
        (
            ["sam", "--variant", "vit_x", "--weights", "random"],
            "error: There is no variant 'vit_x'; there are vit_b",
        ),
        (
            ["sam", "grounding_dino", "--variant", "vit_b"],
            "error: --variant, --revision and a folder of weights belong to one model",
        ),
        (["sam", "--weights", "/nowhere"], "error: /nowhere is not a folder; --weights takes hub, random or"),
        (["sam", "--size", "tiny", "--weights", "hub"], "error: The hub has no tiny weights"),
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
    assert export("sam", "--out", tmp_path)[2] == "error: MemoryError: no room\n"
    errors = export("sam", "--out", tmp_path, "--traceback")[2]
    assert "Traceback" in errors
    assert ", in fail\n" in errors
    assert errors.endswith("\nerror: MemoryError: no room\n")


def test_the_list_shows_every_model_in_one_row() -> None:
    code, output, errors = export("--list")
    assert (code, errors) == (0, "")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines() if "│" in line]
    assert [row[0] for row in rows] == list(FAMILIES)
    for name, variants, weights, licence in rows:
        assert variants.startswith(FAMILIES[name].variants[0])
        assert weights
        assert licence.startswith(("MIT", "Apache-2.0"))


def test_no_model_is_a_mistake() -> None:
    code, _, errors = export()
    assert code == 2
    assert "name at least one model" in errors


def test_help_and_list_import_no_pytorch() -> None:
    script = (
        "import sys; from export.__main__ import app; app(sys.argv[1:], standalone_mode=False); "
        "heavy = {'torch', 'transformers', 'onnx', 'open_clip', 'doctr'} & sys.modules.keys(); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    for option in ("--help", "--list"):
        result = subprocess.run([sys.executable, "-c", script, option], capture_output=True, check=False)
        assert result.returncode == 0, result.stderr


# Exports two ready files where the packages of PyTorch models cannot be imported.
WITHOUT_PYTORCH = """
import sys

for name in ("torch", "torchvision", "transformers", "open_clip", "doctr"):
    sys.modules[name] = None
import export.face_detection, export.gaze, export.onnx_file, export.ready_onnx
from export.__main__ import app

yunet, gaze, repository = sys.argv[1:]
app(["face_detection", "--weights", yunet, "--out", repository], standalone_mode=False)
app(["gaze", "--weights", gaze, "--out", repository], standalone_mode=False)
"""


def test_ready_files_need_no_pytorch(data: Callable[[str], Path], tmp_path: Path) -> None:
    files = [data("face/yunet_n_dynamic.onnx"), data("gaze/mobileone_s0_gaze.onnx")]
    command = [sys.executable, "-c", WITHOUT_PYTORCH, *map(str, files), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, file in zip(("face_detection", "gaze"), files, strict=True):
        assert f"{name}: load the weights" in done.stdout
        assert f"differs from {file.name} by at most" in done.stdout
    assert "PyTorch" not in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"face_detection", "gaze"}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporters whose graphs are made in no time, of which gaze's fails."""

    def make(name: str) -> Any:
        def prepare(options: Any) -> Any:
            if name == "gaze":
                raise ExportError("No hub has it.")
            return Export([], notice=f"The notice of {name}.")

        return prepare

    def place(prepared: Export, repository: Path, **_options: Any) -> list[Any]:
        name = prepared.notice.split()[-1].rstrip(".")
        for role in {"sam": ["sam_encoder", "sam_decoder"]}.get(name, [name]):
            (repository / role / "1").mkdir(parents=True)
            (repository / role / "1" / "model.onnx").touch()
            (repository / role / "config.pbtxt").touch()
        return []

    for name in ("sam", "gaze", "grounding_dino"):
        monkeypatch.setattr(f"{FAMILIES[name].module}.prepare", make(name))
    monkeypatch.setattr("export.onnx_file.place", place)


@pytest.mark.usefixtures("quick")
def test_one_that_fails_leaves_the_others_and_is_told_at_the_end(tmp_path: Path) -> None:
    code, output, errors = export("sam", "gaze", "grounding_dino", "--repository", tmp_path / "new models")
    assert code == 1
    assert errors == "error: gaze: No hub has it.\n"
    place = tmp_path / "new models"
    option = f"--repository '{place}'"
    assert output.partition("\n\n")[2].splitlines() == [
        "Exported: sam, grounding_dino",
        "Not exported: gaze. No hub has it.",
        f"In {place}: grounding_dino, sam_decoder, sam_encoder",
        f"Missing for embedding: clip; to add it: visiongate export clip {option}",
        f"Missing for gaze: gaze; to add it: visiongate export gaze --weights L2CSNET.pkl {option}",
        "Missing for gaze: face_detection; to add it: visiongate export face_detection --weights YUNET.onnx "
        + option,
        f"Missing for text: doctr; to add it: visiongate export doctr {option}",
        f"Next: visiongate up {option}",
    ]


@pytest.mark.usefixtures("quick")
def test_the_default_repository_needs_no_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISIONGATE_REPOSITORY", str(tmp_path / "models"))
    code, output, _ = export("sam")
    assert code == 0
    assert "  The notice of sam.\n" in output
    assert f"In {tmp_path}/models: sam_decoder, sam_encoder\n" in output
    assert output.endswith("\nNext: visiongate up\n")
    assert "--repository" not in output


@pytest.mark.usefixtures("quick")
def test_nothing_comes_next_where_nothing_was_exported(tmp_path: Path) -> None:
    code, output, errors = export("gaze", "--repository", tmp_path / "new")
    assert (code, errors) == (1, "error: No hub has it.\n")
    assert "Next" not in output
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clip", "doctr"], "Exporting clip needs more packages (no_torch): make exporter"),
        (["clip", "--weights", "yunet.onnx"], "Exporting clip needs more packages (no_torch): make exporter"),
        (
            ["face_detection", "--weights", "yunet.onnx"],
            "Exporting face_detection needs more packages (no_onnx): make onnx",
        ),
        (["gaze", "--weights", "net.ONNX"], "Exporting gaze needs more packages (no_onnx): make onnx"),
        (["gaze", "--weights", "net.pkl"], "Exporting gaze needs more packages (no_torch): make exporter"),
        (["gaze", "--size", "tiny"], "Exporting gaze needs more packages (no_torch): make exporter"),
        (
            ["doctr", "--variant", "pp_ocrv6_small"],
            "Exporting doctr needs more packages (no_onnx, no_networks): make ocr",
        ),
        (
            ["doctr", "--variant", "pp_ocrv6_medium", "--weights", "folder"],
            "Exporting doctr needs more packages (no_onnx): make onnx",
        ),
    ],
)
def test_missing_packages_are_one_sentence_before_any_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], message: str
) -> None:
    modules = {"export": ("no_torch",), "onnx": ("no_onnx",), "ocr": ("no_onnx", "no_networks")}
    monkeypatch.setattr(extras, "MODULES", modules)
    code, output, errors = export(*arguments, "--out", tmp_path / "new")
    assert (code, output) == (1, "")
    assert errors == f"error: {message}\n"
    assert not (tmp_path / "new").exists()


def test_another_export_into_the_same_repository_is_refused(tmp_path: Path) -> None:
    with reserved(tmp_path):
        code, _, errors = export("sam", "--size", "tiny", "--out", tmp_path)
    assert code == 1
    assert errors.startswith(f"error: Another export is writing to {tmp_path}: wait until it has ended")


def test_an_interrupted_export_is_quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupt(*_arguments: Any, **_options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("export.onnx_writing.export", interrupt)
    code, output, errors = export("sam", "--size", "tiny", "--out", tmp_path / "new")
    assert (code, errors) == (130, "")
    assert "Next" not in output
    assert list(tmp_path.iterdir()) == []


def test_a_broken_setting_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VISIONGATE_CONFIG", str(tmp_path / "none.toml"))
    code, _, errors = export("sam")
    assert code == 1
    assert errors == f"error: cannot read the settings in {tmp_path}/none.toml: No such file or directory\n"

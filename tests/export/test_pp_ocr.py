"""PP-OCR's networks from the package and from folders. What they read: tests/e2e/test_pp_ocr.py."""

import shutil
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from google.protobuf import text_format
from rapidocr import RapidOCR
from tritonclient.grpc import model_config_pb2

from export import onnx_file, pp_ocr
from export.errors import ExportError
from export.families.doctr import FAMILY
from export.weights import Options
from gateway.models.text_lines import LineSpec

PACKAGE, _ = pp_ocr._package()
DETECTION, RECOGNITION = (PACKAGE / f"PP-OCRv6_{role}_small.onnx" for role in ("det", "rec"))


def options(weights: str | Path, variant: str = "pp_ocrv6_small", **others: Any) -> Options:
    return Options(weights=str(weights), variant=variant, **others)


def config(folder: Path, model: str) -> model_config_pb2.ModelConfig:
    text = (folder / model / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def parameters(folder: Path) -> dict[str, str]:
    return {
        name: value.string_value
        for model in ("doctr_detection", "doctr_recognition")
        for name, value in config(folder, model).parameters.items()
    }


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """The small networks as PaddlePaddle's repositories hold them: the characters are in inference.yml."""
    folder = tmp_path / "models"
    model = onnx.load(str(RECOGNITION))
    characters = model.metadata_props[0].value.split("\n")
    del model.metadata_props[:]
    for role, steps in (("det", []), ("rec", characters)):
        place = folder / f"PP-OCRv6_small_{role}_onnx"
        place.mkdir(parents=True)
        normalise = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "scale": "1./255."}
        settings = {
            "Global": {"model_name": place.name},
            "PreProcess": {"transform_ops": [{"DecodeImage": None}, {"NormalizeImage": normalise}]},
            "PostProcess": {"name": "CTCLabelDecode", "character_dict": steps},
        }
        (place / "inference.yml").write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    shutil.copy(DETECTION, folder / "PP-OCRv6_small_det_onnx" / "inference.onnx")
    onnx.save(model, str(folder / "PP-OCRv6_small_rec_onnx" / "inference.onnx"))
    return folder


def test_the_package_and_the_official_folders_give_the_same(official: Path, tmp_path: Path) -> None:
    """Both in the proof of `place`: each file answers as the one that it is made of."""
    placed = [
        *onnx_file.place(pp_ocr.prepare(options("rapidocr")), tmp_path / "package"),
        *onnx_file.place(pp_ocr.prepare(options(official)), tmp_path / "official"),
    ]
    assert [file.model for file in placed] == 2 * ["doctr_detection", "doctr_recognition"]
    assert max(file.error for file in placed) < 1e-4
    package, folder = parameters(tmp_path / "package"), parameters(tmp_path / "official")
    assert "rapidocr 3.10.0" in package.pop("notice")
    assert folder.pop("notice").endswith("models")
    assert package == folder


def test_what_the_gateway_reads_of_it(tmp_path: Path) -> None:
    export = pp_ocr.prepare(options("rapidocr"))
    found = {name: value for graph in export.graphs for name, value in graph.parameters.items()}
    spec = LineSpec.from_parameters(found, tmp_path)
    assert len(spec.vocabulary) == len(set(spec.vocabulary)) == 18_709
    assert spec.vocabulary[-1] == " "
    assert set(string.printable[:94]) <= set(spec.vocabulary)
    assert (spec.crop_height, spec.crop_widths[0], spec.input_size) == (48, 320, 2016)
    assert "Apache" in export.notice
    # The numbers of the package's own pipeline.
    settings = RapidOCR(params={"Global.log_level": "error"}).cfg
    detection, thresholds = settings.Det, spec.thresholds
    assert (thresholds.bin_threshold, thresholds.box_threshold) == (detection.thresh, detection.box_thresh)
    assert (thresholds.unclip_ratio, spec.min_side) == (detection.unclip_ratio, detection.limit_side_len)
    assert spec.min_confidence == settings.Global.text_score
    assert settings.Global.max_side_len <= spec.max_side < settings.Global.max_side_len + 32
    assert (3, spec.crop_height, spec.crop_widths[0]) == tuple(settings.Rec.rec_img_shape)


def test_batches_fit_into_memory_whatever_the_config_was(tmp_path: Path) -> None:
    """The template has 128 words. As many lines would take more than 2 GB."""
    onnx_file.place(pp_ocr.prepare(options("rapidocr")), tmp_path)
    assert config(tmp_path, "doctr_recognition").max_batch_size == pp_ocr.MAX_CROPS
    assert not config(tmp_path, "doctr_recognition").dynamic_batching.preferred_batch_size


def test_other_means_are_read_from_the_official_file(official: Path) -> None:
    path = official / "PP-OCRv6_small_det_onnx" / "inference.yml"
    path.write_text(path.read_text().replace("0.5", "0.25"))
    pixels = pp_ocr.File(path.with_name("inference.onnx")).pixels()
    assert (pixels.mean, pixels.std) == ((0.25,) * 3, (0.25,) * 3)
    np.testing.assert_allclose(pixels.normalise(np.full((1, 1, 1, 3), 255, np.uint8)).ravel(), [3] * 3)


def damage(what: str) -> Callable[[Path], None]:
    def lacking(folder: Path) -> None:
        shutil.rmtree(folder / "PP-OCRv6_small_rec_onnx")

    def twice(folder: Path) -> None:
        shutil.copytree(folder / "PP-OCRv6_small_rec_onnx", folder / "old" / "PP-OCRv6_small_rec_onnx")

    def mixed_up(folder: Path) -> None:
        rec, det = folder / "PP-OCRv6_small_rec_onnx", folder / "PP-OCRv6_small_det_onnx"
        shutil.copy(rec / "inference.onnx", det / "inference.onnx")

    def of_a_detector(folder: Path) -> None:
        rec, det = folder / "PP-OCRv6_small_rec_onnx", folder / "PP-OCRv6_small_det_onnx"
        shutil.copy(det / "inference.onnx", rec / "inference.onnx")

    def no_characters(folder: Path) -> None:
        (folder / "PP-OCRv6_small_rec_onnx" / "inference.yml").unlink()

    def one_character_less(folder: Path) -> None:
        path = folder / "PP-OCRv6_small_rec_onnx" / "inference.yml"
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        settings["PostProcess"]["character_dict"].pop()
        path.write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")

    def no_yaml(folder: Path) -> None:
        (folder / "PP-OCRv6_small_rec_onnx" / "inference.yml").write_bytes(b"a: [\xff")

    def other_yaml(folder: Path) -> None:
        (folder / "PP-OCRv6_small_rec_onnx" / "inference.yml").write_text("PostProcess: [1]\nPreProcess: x\n")

    def no_spread(folder: Path) -> None:
        path = folder / "PP-OCRv6_small_det_onnx" / "inference.yml"
        path.write_text("PreProcess: {transform_ops: [x, {NormalizeImage: {mean: [1, 2, 3]}}]}")

    def no_onnx(folder: Path) -> None:
        (folder / "PP-OCRv6_small_rec_onnx" / "inference.onnx").write_bytes(b"not a network")

    damages: dict[str, Callable[[Path], None]] = dict(locals())
    damages.pop("what")
    return damages[what]


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("lacking", "models has no ONNX file of PP-OCR's small rec: both words must be in the path"),
        ("twice", "models has 2 ONNX files of PP-OCR's small rec"),
        ("mixed_up", "not PP-OCR's detection network: it needs the input 'x'"),
        ("of_a_detector", "not PP-OCR's recognition network of 18708 characters"),
        ("no_characters", "does not say its characters"),
        ("one_character_less", "not PP-OCR's recognition network of 18707 characters"),
        ("no_yaml", "inference.yml is not valid"),
        ("other_yaml", "does not say its characters"),
        ("no_spread", "NormalizeImage needs a mean and a std of three numbers"),
        ("no_onnx", "is not a valid ONNX file"),
    ],
)
def test_files_that_are_not_its_own(official: Path, what: str, says: str) -> None:
    damage(what)(official)
    with pytest.raises(ExportError, match=says) as caught:
        pp_ocr.prepare(options(official))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (options("/no/such/folder"), "/no/such/folder is not a folder"),
        (options("random"), "comes from ready ONNX files: --weights takes rapidocr or a folder"),
        (options("rapidocr", size="tiny"), "comes from ready ONNX files"),
        (options("rapidocr", revision="main"), "--revision"),
        (options("rapidocr", vocabulary=Path("words.txt")), "--vocabulary"),
        (
            options("rapidocr", "pp_ocrv6_medium"),
            "rapidocr 3.10.0 has no .*medium det: pip",
        ),
    ],
)
def test_options_that_do_not_fit(wanted: Options, says: str) -> None:
    with pytest.raises(ExportError, match=says):
        pp_ocr.prepare(wanted)


def test_a_package_of_another_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As version 3.4 was, with the networks of the generation before."""
    (tmp_path / "ch_PP-OCRv4_det_mobile.onnx").touch()
    monkeypatch.setattr(pp_ocr, "_package", lambda: (tmp_path, "rapidocr 3.4.0"))
    with pytest.raises(ExportError, match=r"rapidocr 3\.4\.0 has no .*: pip install 'rapidocr>=3\.10"):
        pp_ocr.prepare(options("rapidocr"))


def test_which_packages_it_needs() -> None:
    assert FAMILY.default_weights("pp_ocrv6_small") == "rapidocr"
    assert FAMILY.default_weights(None) == FAMILY.default_weights("db_resnet50-parseq") == "hub"
    assert FAMILY.extra(options("rapidocr")) == "ocr"
    assert FAMILY.extra(options("some/folder")) == "onnx"
    assert FAMILY.extra(Options()) == "export"

"""Every family and kind of variant in half precision, with its rounding in place."""

from pathlib import Path

import pytest

from export import clip, clip_weights, doctr, onnx_file, pp_ocr
from export.families import FAMILIES
from export.families.doctr import DETECTORS, RECOGNIZERS
from export.graph import Export
from export.half import Precision
from export.weights import Options

TINY = Options(weights="random", size="tiny")


def placed(export: Export, folder: Path) -> dict[str, float]:
    found = onnx_file.place(export, folder, precision=Precision.fp16)
    # ResNets with seeded weights are the worst. Single pixels of their maps are where a sigmoid is steepest.
    assert all(1e-6 < one.error < (0.5 if one.model == "doctr_detection" else 5e-2) for one in found)
    assert not any(one.kept for one in found)
    return {one.model: one.error for one in found}


@pytest.mark.parametrize(
    "family",
    [family if family == "gaze" else pytest.param(family, marks=pytest.mark.long) for family in FAMILIES],
)
def test_toys(family: str, tmp_path: Path) -> None:
    placed(FAMILIES[family].prepare(TINY), tmp_path)


@pytest.mark.long
@pytest.mark.parametrize(
    "pair",
    [
        *(f"{detector}-crnn_mobilenet_v3_small" for detector in DETECTORS),
        *(f"db_mobilenet_v3_large-{recognizer}" for recognizer in RECOGNIZERS),
    ],
)
def test_networks_of_doctr(pair: str, tmp_path: Path) -> None:
    placed(doctr.prepare(Options(weights="random", variant=pair)), tmp_path)


@pytest.mark.long
def test_clip_as_a_resnet(tmp_path: Path) -> None:
    described = clip.describe(*clip_weights.build(Options(weights="random", variant="rn50")))
    placed(described, tmp_path)


@pytest.mark.long
def test_pp_ocr(tmp_path: Path) -> None:
    placed(pp_ocr.prepare(Options(weights="rapidocr", variant="pp_ocrv6_small")), tmp_path)

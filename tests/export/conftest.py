"""Toy models of both families, exported once a session."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from export import grounding_dino, onnx_file, sam, sam2
from export.graph import Arrays, Export
from export.weights import Options

TINY = Options(weights="random", size="tiny")


@dataclass(frozen=True)
class Exported:
    """The PyTorch model, and how to run the ONNX files made of it."""

    model: Any
    repository: Path
    placed: list[onnx_file.Placed]
    run: Callable[[str, Arrays], Arrays]


def _export(model: Any, export: Export, repository: Path) -> Exported:
    placed = onnx_file.place(export, repository)
    sessions = {
        one.model: onnxruntime.InferenceSession(str(one.path), providers=["CPUExecutionProvider"])
        for one in placed
    }

    def run(name: str, inputs: Arrays) -> Arrays:
        names = [output.name for output in sessions[name].get_outputs()]
        return dict(zip(names, sessions[name].run(names, inputs), strict=True))

    return Exported(model, repository, placed, run)


@pytest.fixture(scope="session")
def tiny_sam(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return _export(sam.build(TINY)[0], sam.prepare(TINY), tmp_path_factory.mktemp("sam"))


@pytest.fixture(scope="session")
def tiny_sam2(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return _export(sam2.build(TINY)[0], sam2.prepare(TINY), tmp_path_factory.mktemp("sam2"))


@pytest.fixture(scope="session")
def tiny_grounding_dino(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    model, _, _ = grounding_dino.build(TINY)
    return _export(model, grounding_dino.prepare(TINY), tmp_path_factory.mktemp("grounding_dino"))

"""The families of the exporter, and that a new one needs no more than its module."""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import export
from export.families import DEFAULT_SET, FAMILIES
from export.family import ExporterFamily, extra_of_ready_onnx, modules_of, published
from export.weights import Options, Variant
from gateway import extras
from gateway.services.registry import FAMILIES as SERVED


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
def test_a_family_says_all_that_the_list_shows(family: ExporterFamily) -> None:
    assert family.variants
    assert len(set(family.variants)) == len(family.variants)
    assert family.weights
    assert family.licence
    assert callable(import_module(family.module).prepare)
    assert family.extra(Options()) in extras.MODULES
    assert family.extra(Options(weights="random")) == "export"


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    ("weights", "extra"),
    [
        ("yunet.onnx", "onnx"),
        ("some/folder/YUNET.ONNX", "onnx"),
        ("hub", "onnx"),
        ("demo", "export"),
        ("random", "export"),
        ("L2CSNet.pkl", "export"),
        ("folder.onnx/model", "export"),
    ],
)
def test_ready_files_need_the_small_extra(name: str, weights: str, extra: str) -> None:
    takes_ready_files = FAMILIES[name].extra is extra_of_ready_onnx
    assert takes_ready_files == (name in {"face_detection", "gaze"})
    assert FAMILIES[name].extra(Options(weights=weights)) == (extra if takes_ready_files else "export")


def test_alternatives_answer_for_a_family_of_the_default_set() -> None:
    for name, family in FAMILIES.items():
        assert (name in DEFAULT_SET) == (family.alternative_of is None)
        assert family.alternative_of in {None, *DEFAULT_SET}


def test_the_gateway_serves_the_same_families_and_alternatives() -> None:
    alternatives = {choice.name: family.name for family in SERVED for choice in family.alternatives}
    assert {name: FAMILIES[name].alternative_of for name in alternatives} == alternatives
    assert {member.name for family in SERVED for member in family.with_alternatives} == FAMILIES.keys()


def test_the_readme_has_the_table_of_the_list() -> None:
    text = (Path(export.__path__[0]) / "README.md").read_text(encoding="utf-8").replace("`", "")
    table = text.partition("| model |")[2].partition("\n\n")[0]
    rows = [tuple(cell.strip() for cell in line.split("|")[1:-1]) for line in table.splitlines()[2:]]
    assert rows == [
        (name, family.variants_text, family.weights, family.licence) for name, family in FAMILIES.items()
    ]


def test_toys_and_demo_models_are_not_published() -> None:
    variants = {"large": Variant("some/large", dict, {}), "tiny": Variant(None, dict, {})}
    assert published(variants) == ("large",)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A package of modules in files that are added to it."""
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "some_families"
    folder.mkdir()
    for name in ("zebra", "ape"):
        (folder / f"{name}.py").write_text(f"FAMILY = {name!r}\n")
    (folder / "__init__.py").touch()
    yield import_module("some_families")
    for name in [name for name in sys.modules if name.partition(".")[0] == "some_families"]:
        del sys.modules[name]


def test_a_module_that_is_added_is_found(package: ModuleType) -> None:
    assert [module.FAMILY for module in modules_of(package)] == ["ape", "zebra"]


def test_a_family_prepares_through_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some_exporter.py").write_text("def prepare(options):\n    return options.seed\n")
    monkeypatch.syspath_prepend(tmp_path)
    family = ExporterFamily(
        name="toy", variants=("one",), weights="hub", licence="MIT", module="some_exporter"
    )
    assert family.prepare(Options(seed=7)) == 7  # type: ignore[comparison-overlap]
    del sys.modules["some_exporter"]

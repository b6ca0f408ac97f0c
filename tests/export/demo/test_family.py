"""The families in the demo."""

from importlib import import_module

import pytest

from export.demo.families import FAMILIES
from export.families import DEFAULT_SET


def test_the_families_are_those_of_the_exporter_in_the_order_of_the_tables() -> None:
    assert list(FAMILIES) == ["grounding_dino", "sam", "doctr", "face_detection", "gaze", "clip"]
    assert set(FAMILIES) == set(DEFAULT_SET)
    assert len({family.place for family in FAMILIES.values()}) == len(FAMILIES)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_can_be_trained(name: str) -> None:
    assert callable(import_module(FAMILIES[name].training).run)

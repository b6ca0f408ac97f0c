"""The figures: what a server that knows the truth gets, and one that does not."""

import math
from collections.abc import Sequence
from typing import Any

import pytest

from export.demo import evaluate
from export.demo.families import FAMILIES
from export.demo.family import DemoFamily
from export.demo.measure import Advance, Figure, Measure
from export.demo.scenes import Scene
from export.demo.unseen import unseen

from .conftest import Knowing

# CLIP's measures draw scenes of their own, which the client does not know.
MEASURES = [measure for name, family in FAMILIES.items() if name != "clip" for measure in family.measures]
NAMES = [getattr(measure.figures, "__name__", "") for measure in MEASURES]


@pytest.mark.parametrize("measure", MEASURES, ids=NAMES)
async def test_the_truth_reaches_every_goal(measure: Measure) -> None:
    pictures = unseen(9)
    count: list[int] = []
    client: Any = Knowing(pictures)
    for figure in await measure.figures(client, pictures, lambda: count.append(1)):
        assert figure.reached
        assert figure.value == pytest.approx(0 if figure.at_most else 1, abs=0.05)
    assert len(count) == measure.steps(len(pictures)) == len(pictures)


@pytest.mark.parametrize("measure", MEASURES, ids=NAMES)
async def test_wrong_answers_do_not(measure: Measure) -> None:
    pictures = unseen(9)
    client: Any = Knowing(pictures, wrong=True)
    figures = await measure.figures(client, pictures, lambda: None)
    assert not all(figure.reached for figure in figures)
    if measure in FAMILIES["gaze"].measures:
        assert figures[-1].value == pytest.approx(math.degrees(0.3), rel=0.1)
    elif measure in FAMILIES["doctr"].measures:
        assert [figure.value for figure in figures] == [1, 0, 1]
    else:
        assert max(figure.value for figure in figures) < 0.05


async def test_everything_is_measured_in_the_order_of_the_families(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(what: str) -> Measure:
        async def figures(_client: Any, pictures: Sequence[Scene], advance: Advance) -> list[Figure]:
            advance()
            return [Figure(what, len(pictures), 1)]

        return Measure(figures, steps=lambda _count: 1)

    families = {
        name: DemoFamily(name, place, "no.module", (measure(f"{name} once"), measure(f"{name} again")))
        for place, name in enumerate(("zebra", "ape"))
    }
    monkeypatch.setattr(evaluate, "FAMILIES", families)
    count: list[int] = []
    client: Any = None
    figures = await evaluate.everything(client, 2, lambda: count.append(1))
    assert [figure.what for figure in figures] == ["zebra once", "zebra again", "ape once", "ape again"]
    assert {figure.value for figure in figures} == {2}
    assert len(count) == evaluate.steps(2) == 4

"""How true a server's answers are on drawn scenes: figures through the public client, as callers get them."""

from collections.abc import Iterator

from export.demo.families import FAMILIES
from export.demo.measure import Advance, Figure, Measure
from export.demo.unseen import unseen
from visiongate import AsyncClient


async def everything(client: AsyncClient, count: int, advance: Advance) -> list[Figure]:
    """Return all figures, measured on `count` scenes each, in the order of the table.

    `advance` is called after every one of `steps(count)` answers.
    """
    pictures = unseen(count)
    figures = []
    for measure in _measures():
        figures += await measure.figures(client, pictures, advance)
    return figures


def steps(count: int) -> int:
    """Return how many answers `everything` waits for."""
    return sum(measure.steps(count) for measure in _measures())


def _measures() -> Iterator[Measure]:
    for family in FAMILIES.values():
        yield from family.measures

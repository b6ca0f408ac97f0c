"""What a family of models brings to the demo."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from export.demo.measure import Measure
from export.demo.scenes import Scene
from visiongate import AsyncClient, draw


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the demo's table: what is in the picture, what was answered, how well that fits."""

    truth: str
    answer: str
    agreement: str
    is_right: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server says about a scene: rows of the table, and what is drawn on the picture."""

    rows: Sequence[Row]
    items: Sequence[draw.Item]


@dataclass(frozen=True, slots=True)
class DemoFamily:
    """A family in the demo."""

    name: str
    """The exporter's name of the family."""
    place: int
    """Its place in the tables, which go from the smallest number to the largest."""
    training: str
    """A module with `run`, a `Run` of `export.demo.command`. Importing it imports PyTorch: seconds."""
    measures: Sequence[Measure] = ()
    """What `visiongate demo evaluate` prints of it."""
    ask: Callable[[AsyncClient, Scene], Awaitable[Answer]] | None = None
    """What `visiongate demo` shows of it. None if another family's rows show its answers."""

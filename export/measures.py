"""How far a file of less than float32 may be from its reference, in the measure of the task."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Measure:
    """A measure of an answer's quality, such as the least cosine, with the limit that it must keep."""

    name: str
    """As the exporter prints it, such as "mask IoU"."""
    of: Callable[[Arrays, Arrays, Arrays], float]
    """Returns the worst value in a case, of its inputs, the graph's outputs, and the reference's outputs."""
    limit: float
    is_least: bool = True
    """Whether the limit is the least value allowed, as of a cosine. Otherwise it is the largest."""


@dataclass(frozen=True)
class Gate:
    """Measures, and inputs on which they mean something."""

    cases: Sequence[Arrays]
    measures: Sequence[Measure]

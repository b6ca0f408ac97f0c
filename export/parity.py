"""The proof that a graph computes the same as its reference."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.errors import ExportError, first_line
from export.graph import Arrays, Graph
from export.measures import Measure


@dataclass(frozen=True)
class Agreement:
    """How far a graph is from its reference."""

    difference: float
    """The largest difference, as a share of the output's largest value."""
    measured: Sequence[str] = ()
    """The worst value of each measure, such as "mask IoU at least 0.998"."""


def run(session: Any, inputs: Arrays) -> Arrays:
    """Return all outputs of an ONNX Runtime session by name."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def compare(
    graph: Graph,
    session: Any,
    tolerance: float,
    measures: Sequence[Measure] = (),
    photos: Sequence[Arrays] = (),
) -> Agreement:
    """Return how far the graph is from its reference in all of its cases, and in those of photos.

    The measures are taken on the photos if there are any. Noise shows no objects and no words: what a model
    sees in it hangs on rounding.

    Raise ExportError if the difference exceeds the tolerance or a measure its limit, or if an output is the
    same in all cases.
    """
    scales = dict.fromkeys([*graph.outputs, *graph.probes], 0.0)
    varied = set()
    differences: list[tuple[float, str, str]] = []
    values_of: dict[str, list[float]] = {measure.name: [] for measure in measures}
    for number, case in enumerate([*graph.cases, *photos]):
        shapes = str({name: value.shape for name, value in case.items()})
        try:
            actual = run(session, case)
        except Exception as error:
            raise ExportError(f"{graph.model} does not run on {shapes}: {first_line(error)}") from error
        expected = graph.reference(case, actual)
        for name, value in expected.items():
            differences.append((difference(actual[name], value), name, shapes))
            finite = value[np.isfinite(value)]
            # The largest over all cases: the only score of a small case may happen to be next to nothing.
            scales[name] = max(scales[name], float(np.abs(finite).max(initial=1e-12)))
            if np.ptp(finite) > 0:
                varied.add(name)
        for measure in measures if not photos or number >= len(graph.cases) else ():
            values_of[measure.name].append(measure.of(case, actual, expected))
    if constant := graph.outputs.keys() - varied:
        # Agreement on a constant proves nothing.
        raise ExportError(f"{graph.model}: {', '.join(sorted(constant))} is the same whatever the input.")
    worst, name, shapes = max((value / scales[name], name, shapes) for value, name, shapes in differences)
    if worst > tolerance:
        raise ExportError(
            f"{graph.model} differs from {graph.origin}: {name} by {worst:.1e} of its largest value "
            f"on {shapes}, and at most {tolerance:.0e} is allowed."
        )
    measured = {measure: measure.worst(values_of[measure.name]) for measure in measures}
    for measure, reached in measured.items():
        if not measure.allows(reached):
            raise ExportError(
                f"{graph.model} differs from {graph.origin}: {measure.name} {reached:.4g}, and "
                f"{'at least' if measure.is_least else 'at most'} {measure.limit:g} is allowed."
            )
    return Agreement(worst, [measure.text(reached) for measure, reached in measured.items()])


def difference(actual: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    """Return the largest difference, infinite if shapes, infinities or NaN differ."""
    if actual.shape != expected.shape:
        return float("inf")
    finite = np.isfinite(expected)
    if not np.array_equal(actual[~finite], expected[~finite]) or not np.isfinite(actual[finite]).all():
        return float("inf")
    return float(np.abs(actual[finite].astype(np.float64) - expected[finite]).max(initial=0))

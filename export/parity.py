"""The proof that a graph computes the same as its reference."""

from typing import Any

import numpy as np

from export.errors import ExportError, first_line
from export.graph import Arrays, Graph


def run(session: Any, inputs: Arrays) -> Arrays:
    """Return all outputs of an ONNX Runtime session by name."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def compare(graph: Graph, session: Any, tolerance: float) -> float:
    """Return the largest difference from the reference, as a share of the output's largest value.

    Raise ExportError if it exceeds the tolerance, or if an output is the same in all cases.
    """
    scales = dict.fromkeys([*graph.outputs, *graph.probes], 0.0)
    varied = set()
    differences: list[tuple[float, str, str]] = []
    for case in graph.cases:
        shapes = str({name: value.shape for name, value in case.items()})
        try:
            actual = run(session, case)
        except Exception as error:
            raise ExportError(f"{graph.model} does not run on {shapes}: {first_line(error)}") from error
        for name, value in graph.reference(case, actual).items():
            differences.append((difference(actual[name], value), name, shapes))
            finite = value[np.isfinite(value)]
            # The largest over all cases: the only score of a small case may happen to be next to nothing.
            scales[name] = max(scales[name], float(np.abs(finite).max(initial=1e-12)))
            if np.ptp(finite) > 0:
                varied.add(name)
    if constant := graph.outputs.keys() - varied:
        # Agreement on a constant proves nothing.
        raise ExportError(f"{graph.model}: {', '.join(sorted(constant))} is the same whatever the input.")
    worst, name, shapes = max((value / scales[name], name, shapes) for value, name, shapes in differences)
    if worst > tolerance:
        raise ExportError(
            f"{graph.model} differs from {graph.origin}: {name} by {worst:.1e} of its largest value "
            f"on {shapes}, and at most {tolerance:.0e} is allowed."
        )
    return worst


def difference(actual: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    """Return the largest difference, infinite if shapes, infinities or NaN differ."""
    if actual.shape != expected.shape:
        return float("inf")
    finite = np.isfinite(expected)
    if not np.array_equal(actual[~finite], expected[~finite]) or not np.isfinite(actual[finite]).all():
        return float("inf")
    return float(np.abs(actual[finite].astype(np.float64) - expected[finite]).max(initial=0))

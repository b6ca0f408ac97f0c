"""Measures graphs in ONNX Runtime. A process of its own: a fault of CUDA's leaves a process useless."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from bench.gpu import timing, weights
from bench.gpu.plan import UNORDERED, WAYS, Measurement
from bench.gpu.sessions import Session

Arrays = Mapping[str, NDArray[Any]]
SEED = 0


def inputs(graphs: Path, model: str, batch: int) -> dict[str, NDArray[Any]]:
    """Return a request of one item, so many times: only the seed decides about what is large in it."""
    held = onnx.load(str(graphs / model / "inputs.onnx"))
    weights.draw_model(held, SEED)
    return {name: np.repeat(value, batch, axis=0) for name, value in weights.to_arrays(held).items()}


def content(graphs: Path, model: str, graph: str) -> bytes:
    """Return a file's bytes with weights drawn."""
    read = onnx.load(str(graphs / model / f"{graph}.onnx"))
    weights.draw_model(read, SEED)
    whole: bytes = read.SerializeToString()
    return whole


class Measurer:
    """Measures one thing after the other, and keeps the last model's bytes for the next batch."""

    def __init__(self, graphs: Path, device: str, seconds: float, answers: Path) -> None:
        self._graphs, self._device, self._seconds, self._answers = graphs, device, seconds, answers
        self._last: tuple[str, str] = ("", "")
        self._content = b""
        self._session: Session | None = None

    def measure(self, wanted: Measurement) -> dict[str, Any]:
        """Return the figures. Raises whatever ONNX Runtime does."""
        way = WAYS[wanted.way]
        if self._last != (wanted.model, way.graph):
            # Both at a time may be more than the card has.
            self._session = None
            self._content = content(self._graphs, wanted.model, way.graph)
            self._last = (wanted.model, way.graph)
        if self._session is None or way.cuda_graph:
            # A CUDA graph is recorded once in a session, for one batch.
            self._session = None
            self._session = Session(self._content, self._device, cuda_graph=way.cuda_graph, tf32=way.tf32)
        feed = inputs(self._graphs, wanted.model, wanted.batch)
        self._session.bind(feed)
        self._session.call()
        on_cpu = self._session.products_on_cpu()
        figures = timing.timed(self._session.call, self._seconds)
        outputs = self._session.outputs()
        # Scores behind a mask are minus infinity.
        figures["finite"] = all(
            bool((np.isfinite(value) | np.isneginf(value)).all())
            for value in outputs.values()
            if value.dtype.kind == "f"
        )
        if on_cpu:
            figures["on_cpu"] = on_cpu[:20]
        return figures | self._agreement(wanted, outputs)

    def _agreement(self, wanted: Measurement, outputs: Arrays) -> dict[str, float]:
        """Return how far the first item's answer is from that of the plain graph in float32."""
        file = self._answers / f"{wanted.model}.npz"
        own = {name: _ordered(wanted.model, value[0]) for name, value in outputs.items()}
        if wanted.way == "plain-fp32":
            file.parent.mkdir(parents=True, exist_ok=True)
            np.savez(file, **own)  # type: ignore[arg-type]
            return {}
        if not file.is_file():
            return {}
        with np.load(file) as held:
            return {"difference": max(difference(own[name], held[name]) for name in own if name in held)}


def difference(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Return the norm of the difference, as a share of the norm of the second."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    # Masked scores are infinite in both.
    known = np.isfinite(other)
    if (np.isfinite(one) != known).any():
        return float("inf")
    return float(np.linalg.norm(one[known] - other[known])) / max(float(np.linalg.norm(other[known])), 1e-30)


def _ordered(model: str, answer: NDArray[Any]) -> NDArray[Any]:
    return np.sort(answer, axis=0) if model in UNORDERED else answer


def run(
    measurements: Sequence[Measurement], graphs: Path, device: str, seconds: float, results: Path
) -> None:
    """Measure all, adding to the results; one that fails is an entry that says why."""
    from bench.gpu.run_torch import TorchMeasurer

    answers = results.parent / "answers"
    is_torch = not WAYS[measurements[0].way].graph
    measurer: Measurer | TorchMeasurer = (
        TorchMeasurer(graphs, device, seconds) if is_torch else Measurer(graphs, device, seconds, answers)
    )
    for wanted in measurements:
        timing.add(results, kind="started", **wanted.as_dict())
        try:
            figures = measurer.measure(wanted)
        except Exception as error:
            why = " ".join(f"{type(error).__name__}: {error}".split())[:500]
            timing.add(results, kind="failed", **wanted.as_dict(), why=why)
            if "CUDA" in why and "out of memory" not in why.lower():
                # Nothing more runs in this process.
                raise
        else:
            timing.add(results, kind="graph", **wanted.as_dict(), **figures)

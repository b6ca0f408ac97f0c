"""Runs of a session on a GPU: tensors bound to its memory, and CUDA graphs.

Beside `model.py`, in its environment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnxruntime

_TYPES = {
    "tensor(bool)": np.bool_,
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    **{
        f"tensor({sign}int{bits})": np.dtype(f"{sign}int{bits}").type
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
}


class BoundRuns:
    """Runs of a session whose inputs go to the device once, and whose outputs come back once."""

    def __init__(self, session: onnxruntime.InferenceSession, device: str, index: int) -> None:
        self._session = session
        self._device = device, index

    def run(self, names: Sequence[str], feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Return these outputs."""
        binding = self._session.io_binding()
        for name, array in feed.items():
            # To where the graph reads it: a few inputs, such as sizes, may be read on the CPU.
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for name in names:
            binding.bind_output(name, *self._device)
        try:
            self._session.run_with_iobinding(binding)
        except RuntimeError:
            # These errors have lost their kind, by which a bad request is known. Those of `run` have it.
            return self._session.run(names, feed)
        return [value.numpy() for value in binding.get_outputs()]


class GraphRuns(BoundRuns):
    """Runs by CUDA graphs of some batch sizes: the GPU gets all of a run's work by one call.

    A batch is filled up with zeros to the next of the sizes. Larger ones run without a graph.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        device: str,
        index: int,
        of_size: Mapping[int, onnxruntime.InferenceSession],
    ) -> None:
        """Prepare graphs of batch sizes: a session of each, in which all sizes are fixed.

        Raises ValueError if a tensor has another size that is not.
        """
        super().__init__(session, device, index)
        self._graphs = {size: _Graph(of_size[size], self._device) for size in sorted(of_size)}

    def run(self, names: Sequence[str], feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Return these outputs."""
        count = len(next(iter(feed.values())))
        graph = next((graph for size, graph in self._graphs.items() if size >= count), None)
        return super().run(names, feed) if graph is None else graph.run(names, feed, count)


class _Graph:
    """A session that records its first run as a graph, and its tensors.

    A graph always reads and writes the same memory.
    """

    def __init__(self, session: onnxruntime.InferenceSession, device: tuple[str, int]) -> None:
        import onnxruntime  # noqa: PLC0415

        def tensor(node: Any) -> onnxruntime.OrtValue:
            if not all(isinstance(size, int) for size in node.shape):
                raise ValueError(
                    f"'cuda_graphs' needs fixed shapes behind the batch, and '{node.name}' has {node.shape}"
                )
            return onnxruntime.OrtValue.ortvalue_from_shape_and_type(node.shape, _TYPES[node.type], *device)

        self._session = session
        self._inputs = {node.name: tensor(node) for node in session.get_inputs()}
        self._outputs = {node.name: tensor(node) for node in session.get_outputs()}
        self._binding = session.io_binding()
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)

    def run(self, names: Sequence[str], feed: Mapping[str, np.ndarray], count: int) -> list[np.ndarray]:
        for name, value in self._inputs.items():
            value.update_inplace(_filled(feed[name], tuple(value.shape())))
        self._session.run_with_iobinding(self._binding)
        # Copies: the next run writes over the tensors.
        return [np.array(self._outputs[name].numpy()[:count]) for name in names]


def _filled(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the array with zeros behind its rows."""
    if array.shape == shape:
        return np.ascontiguousarray(array)
    filled = np.zeros(shape, array.dtype)
    filled[: len(array)] = array
    return filled

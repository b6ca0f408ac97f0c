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
            self._session.run_with_iobinding(binding, self._options())
        except RuntimeError:
            # These errors have lost their kind, by which a bad request is known. Those of `run` have it.
            return self._session.run(names, feed, self._options())
        return [value.numpy() for value in binding.get_outputs()]

    def _options(self) -> onnxruntime.RunOptions | None:
        return None


class GraphRuns(BoundRuns):
    """Runs by CUDA graphs of some batch sizes: the GPU gets all of a run's work by one call.

    A batch is filled up with zeros to the next of the sizes. Larger ones run without a graph. A graph is
    recorded at the first run of its size, and has tensors of its own: it always reads and writes the same
    memory.
    """

    def __init__(
        self, session: onnxruntime.InferenceSession, device: str, index: int, sizes: Sequence[int]
    ) -> None:
        """Prepare graphs of these batch sizes. Raise ValueError if another size of a tensor is not fixed."""
        super().__init__(session, device, index)
        for kind, nodes in (("input", session.get_inputs()), ("output", session.get_outputs())):
            for node in nodes:
                if not all(isinstance(size, int) for size in node.shape[1:]) or isinstance(
                    node.shape[0], int
                ):
                    raise ValueError(
                        "'cuda_graphs' needs a variable batch and otherwise fixed shapes, and "
                        f"{kind} '{node.name}' has {node.shape}"
                    )
        self._sizes = sorted(sizes)
        self._graphs: dict[int, _Graph] = {}

    def run(self, names: Sequence[str], feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Return these outputs."""
        count = len(next(iter(feed.values())))
        size = next((size for size in self._sizes if size >= count), None)
        if size is None:
            return super().run(names, feed)
        if size not in self._graphs:
            self._graphs[size] = _Graph(self._session, self._device, size)
        return self._graphs[size].run(names, feed, count)

    def _options(self) -> onnxruntime.RunOptions:
        return _run_options("-1")  # neither record nor replay


class _Graph:
    """The tensors of one batch size, and the graph that reads and writes them."""

    def __init__(self, session: onnxruntime.InferenceSession, device: tuple[str, int], size: int) -> None:
        import onnxruntime  # noqa: PLC0415

        def tensors(nodes: list[Any]) -> dict[str, onnxruntime.OrtValue]:
            return {
                node.name: onnxruntime.OrtValue.ortvalue_from_shape_and_type(
                    [size, *node.shape[1:]], _TYPES[node.type], *device
                )
                for node in nodes
            }

        self._session = session
        self._options = _run_options(str(size))
        self._inputs, self._outputs = tensors(session.get_inputs()), tensors(session.get_outputs())
        self._binding = session.io_binding()
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)

    def run(self, names: Sequence[str], feed: Mapping[str, np.ndarray], count: int) -> list[np.ndarray]:
        for name, value in self._inputs.items():
            value.update_inplace(_filled(feed[name], tuple(value.shape())))
        self._session.run_with_iobinding(self._binding, self._options)
        # Copies: the next run writes over the tensors.
        return [np.array(self._outputs[name].numpy()[:count]) for name in names]


def _filled(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the array with zeros behind its rows."""
    if array.shape == shape:
        return np.ascontiguousarray(array)
    filled = np.zeros(shape, array.dtype)
    filled[: len(array)] = array
    return filled


def _run_options(graph: str) -> onnxruntime.RunOptions:
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.RunOptions()
    options.add_run_config_entry("gpu_graph_id", graph)
    return options

"""The same architectures in PyTorch, half precision, as their own packages build them."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.gpu import timing
from bench.gpu.plan import WAYS, Measurement


class TorchMeasurer:
    """Measures PyTorch's own models, eagerly or compiled, with weights of a seed."""

    def __init__(self, graphs: Path, device: str, seconds: float) -> None:
        self._graphs, self._device, self._seconds = graphs, device, seconds
        self._last: tuple[str, str] = ("", "")
        self._model: Any = None

    def measure(self, wanted: Measurement) -> dict[str, Any]:
        """Return the figures. Raises whatever PyTorch does."""
        import torch

        from bench.gpu import baselines
        from bench.gpu.run_graphs import inputs

        if self._last != (wanted.way, wanted.model):
            self._model = None
            torch.manual_seed(0)
            facts = json.loads((self._graphs / wanted.model / "facts.json").read_text())
            make = baselines.MODELS[wanted.model]
            model = make(facts["size"], facts["config"]).eval().to(self._device, torch.float16)
            self._model = torch.compile(model) if WAYS[wanted.way].compiled else model
            self._last = (wanted.way, wanted.model)
        feed = {
            name: torch.from_numpy(value).to(self._device)
            for name, value in inputs(self._graphs, wanted.model, wanted.batch).items()
        }
        with torch.inference_mode():
            figures = timing.timed(self._call(feed), self._seconds)
            outputs = self._model(**feed)
        return figures | {"finite": all(bool(value.isfinite().all()) for value in outputs)}

    def _call(self, feed: Mapping[str, Any]) -> Callable[[], object]:
        import torch

        def call() -> None:
            self._model(**feed)
            if self._device == "cuda":
                torch.cuda.synchronize()

        return call


def peak(device: str, seconds: float) -> dict[str, float]:
    """Return the TFLOP/s of a large product of matrices, which no model gets past, by precision.

    Random numbers: zeros let the card run faster than any model can.
    """
    import torch

    torch.backends.cuda.matmul.allow_tf32 = True
    side = 8192 if device == "cuda" else 256
    rates = {}
    for name, kind in (("fp16", torch.float16), ("tf32", torch.float32)):
        a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))

        def product(a: Any = a, b: Any = b) -> None:
            a @ b
            if device == "cuda":
                torch.cuda.synchronize()

        rates[name] = 2 * side**3 / timing.timed(product, seconds)["ms"] / 1e9
    return rates

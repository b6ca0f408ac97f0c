"""What is measured, in the order of its worth: a run that stops anywhere has measured what matters most."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

MODELS = (
    "clip_image",
    "sam_encoder",
    "grounding_dino",
    "clip_text",
    "sam_decoder",
    "doctr_detection",
    "doctr_recognition",
    "gaze",
)
# Images at a time. Of the large models, the first three fill the card, and 32 would only take time.
BATCHES = {"sam_encoder": (1, 8), "grounding_dino": (1, 8)}
DEFAULT_BATCHES = (1, 8, 32)
# Top-k of near-ties puts the rows of its answers into another order.
UNORDERED = {"grounding_dino"}
# Its shapes depend on what the graph reads of its own inputs, which a CUDA graph cannot record.
NO_CUDA_GRAPH = {"grounding_dino"}
GRAPHS = ("plain-fp32", "fast-fp32", "fast-fp16", "plain-fp16")
"""The files of a model: plain, or with attention as one operator and the other rewrites."""

SERVED = "fast-fp16"
"""The one that the server runs."""


@dataclass(frozen=True)
class Measurement:
    """One model, run in one way."""

    way: str
    """A name of `WAYS`."""
    model: str
    batch: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Way:
    """How a model is run. graph: one of `GRAPHS`; empty for PyTorch."""

    title: str
    graph: str = ""
    cuda_graph: bool = False
    compiled: bool = False
    tf32: bool = True


WAYS = {
    # Without TF32: the reference for the outputs of all others.
    "plain-fp32": Way("plain graph, FP32", "plain-fp32", tf32=False),
    "fast-fp16": Way("ours, FP16", "fast-fp16"),
    "torch-fp16": Way("PyTorch eager, FP16"),
    "plain-fp16": Way("plain graph, FP16", "plain-fp16"),
    "fast-fp16-cuda-graph": Way("ours, FP16, CUDA graph", "fast-fp16", cuda_graph=True),
    "torch-compile": Way("torch.compile, FP16", compiled=True),
    "fast-fp32": Way("ours, FP32 as TF32", "fast-fp32"),
}


def passes(models: Iterable[str], ways: Iterable[str] = WAYS) -> list[list[Measurement]]:
    """Return the measurements of each process: one way, all models and batches."""
    models = [model for model in MODELS if model in set(models)]
    found = []
    for name, way in WAYS.items():
        if name not in set(ways):
            continue
        found.append(
            [
                Measurement(name, model, batch)
                for model in models
                if not (way.cuda_graph and model in NO_CUDA_GRAPH)
                for batch in _batches(name, model)
            ]
        )
    return found


def _batches(way: str, model: str) -> Sequence[int]:
    batches = BATCHES.get(model, DEFAULT_BATCHES)
    if way == "plain-fp32":
        return batches[:1]
    # A compilation takes half a minute: the batch that matters.
    return batches[-1:] if way == "torch-compile" else batches

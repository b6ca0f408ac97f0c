"""The description of an ONNX file, which a family of models gives before the file is made."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from export.measures import Arrays, Gate, Measure

if TYPE_CHECKING:
    import onnx
    import torch

__all__ = ["Arrays", "Export", "Graph", "beside"]


@dataclass(frozen=True)
class Graph:
    """One ONNX file to be made: a module, its signature, and the reference that it must agree with."""

    model: str
    """The model's name in the repository."""
    module: "torch.nn.Module | onnx.ModelProto"
    """A PyTorch module, which takes `inputs` by position and returns `outputs`, then `probes`, as a tuple.

    Or an ONNX model (see `export.ready_onnx`) whose inputs and outputs have these names. Then nothing here
    needs PyTorch.
    """
    inputs: Mapping[str, np.ndarray[Any, Any]]
    """An example. An axis that is to be dynamic must not have size 1 here: exporters bake that size in."""
    outputs: Mapping[str, Sequence[int | str]]
    """Their shapes: sizes, and the names of dynamic axes."""
    dynamic: Mapping[str, Mapping[int, str]]
    """The names of the dynamic axes of the inputs."""
    cases: Sequence[Arrays]
    """Inputs to compare on: other batches and other sizes of every dynamic axis than the example's."""
    reference: Callable[[Arrays, Arrays], Arrays]
    """Returns the expected outputs for a case's inputs and the graph's own outputs.

    Most references ignore the second argument. It is for choices that rounding decides (top-k of
    near-ties): a reference may follow the graph's choice once it has seen that it is as good as its own.
    """
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Facts of the model that the gateway needs: `parameters` of config.pbtxt."""
    probes: Mapping[str, Sequence[int | str]] = field(default_factory=dict)
    """Further outputs, which only the comparison needs. The placed file does not have them."""
    tolerance: float = 1e-4
    """The largest difference allowed, as a share of the output's largest value in all cases."""
    half_tolerance: float = 5e-2
    """The same limit at a half precision."""
    measures: Sequence[Measure] = ()
    """What a file of less than float32 is held to, besides `half_tolerance`."""
    photos: Callable[[], Sequence[Arrays]] = tuple
    """Returns further inputs for a file of less than float32: of the kind that the model is made for."""
    int8_gate: Callable[[], Gate] | None = None
    """Makes what an int8 file is held to. A graph without it cannot be int8."""
    warmup: Sequence[Arrays] = ()
    """Requests as the gateway sends them, at the sizes of production, of one item each.

    Triton runs them before it calls the model ready.
    """
    ranges: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    """The least, the usual and the largest size of each dynamic axis: see `export.ranges`.

    TensorRT's profiles are made of them. The batch is among them only if an engine is to take smaller ones
    than the config says.
    """
    origin: str = "PyTorch"
    """The name, in messages, of what the reference runs."""
    max_batch_size: int | None = None
    """The largest batch that may run, if that is less than the config says."""
    dynamo: bool = True
    """Whether to use the exporter based on torch.export. The older one traces with TorchScript.

    This and `opset` belong to PyTorch modules: an ONNX model has its opset already.
    """
    opset: int = 18
    """The dynamo exporter silently writes 18 if it is asked for less."""
    half_kept_out: Sequence[str] = ()
    """Parts of the names of products and convolutions that stay in float32 at half precision.

    The names hold PyTorch's module paths. What places things, such as heads of boxes, needs that.
    """


@dataclass(frozen=True)
class Export:
    """The models and files that one family puts into the repository together."""

    graphs: Sequence[Graph]
    files: Mapping[str, str] = field(default_factory=dict)
    """Small text files by their path in the repository, such as `grounding_dino/tokenizer.json`."""
    notice: str = ""
    """What the licence of the weights wants to be said of them."""


def beside(export: Export) -> Export:
    """Return the same export under the variant's own name, such as `sam_encoder-vit_h`.

    It then lies beside the models that have the plain names.
    """
    suffix = f"-{export.graphs[0].parameters['variant']}"
    return Export(
        [replace(graph, model=graph.model + suffix) for graph in export.graphs],
        {path.replace("/", f"{suffix}/", 1): text for path, text in export.files.items()},
        export.notice,
    )

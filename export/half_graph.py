"""Float32 graphs rewritten so that chosen nodes compute in half precision."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from export.half_choice import LARGEST, Choice, is_mask, reads

# The name of a half is that of its float32 tensor with this behind it.
SUFFIX = "_half"
# What masks add to scores is at most this. Together with a score it is still a half, and not infinite:
# a row of which all is masked would become NaN.
LARGEST_MASK = 60000.0


@dataclass(frozen=True)
class Converted:
    """A model with halves."""

    model: Any
    halves: Sequence[str]
    """The float32 tensors of which there is a half, but for those in which a mask may be.

    The half has the same name with SUFFIX behind it.
    """


def converted(
    model: Any, kept_out: Sequence[str], too_large: Collection[str] = (), is_rounded: bool = True
) -> Converted:
    """Return a float32 model, which is changed, with the nodes of a `Choice` in half precision.

    Without `is_rounded`, its halves are float32: they then show what halves would have to hold.
    """
    _turn_constants_into_weights(model)
    choice = Choice(model, kept_out, too_large)
    writer = _Writer(choice, TensorProto.FLOAT16 if is_rounded else TensorProto.FLOAT)
    for index, node in enumerate(choice.nodes):
        writer.add(index, node)
    for output in model.graph.output:
        writer.full(output.name)
    del model.graph.node[:]
    model.graph.node.extend(writer.nodes)
    # The types that stand there are no longer true.
    del model.graph.value_info[:]
    used = choice.outputs.union(*map(reads, writer.nodes))
    kept = [weight for weight in [*model.graph.initializer, *writer.weights] if weight.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return Converted(model, writer.halves)


def rounded(weight: Any, name: str, bound: float = LARGEST, kind: int = TensorProto.FLOAT16) -> Any:
    """Return a weight as halves under another name. What a half cannot hold becomes its largest."""
    values = numpy_helper.to_array(weight).clip(-bound, bound)
    return numpy_helper.from_array(values.astype(helper.tensor_dtype_to_np_dtype(kind)), name)


class _Writer:
    """Writes nodes with the casts between them, each cast once."""

    def __init__(self, choice: Choice, kind: int) -> None:
        self.choice = choice
        self.kind = kind
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.halves: list[str] = []
        self.done: set[str] = set()

    def add(self, index: int, node: Any) -> None:
        """Write a node, in half if that is chosen, and before it what casts its inputs."""
        if index not in self.choice.chosen:
            for name in reads(node):
                self.full(name)
            self.nodes.append(node)
            return
        is_masked = index in self.choice.masked
        for place, name in enumerate(node.input):
            if self.choice.types.get(name) == TensorProto.FLOAT:
                node.input[place] = self.half(name, is_masked or is_mask(node, place))
        for place, name in enumerate(node.output):
            if self.choice.types.get(name) == TensorProto.FLOAT:
                node.output[place] = name + SUFFIX
                if not is_masked:
                    self.halves.append(name)
        self.nodes.append(node)

    def full(self, name: str) -> None:
        """Make sure that a tensor is there in float32."""
        if self.choice.is_half(name) and self.choice.types.get(name) == TensorProto.FLOAT:
            self._once(name, lambda: self._cast(name + SUFFIX, name, TensorProto.FLOAT))

    def half(self, name: str, is_masked: bool) -> str:
        """Return the name of a tensor in half. What a mask adds is bounded first."""
        if self.choice.is_half(name):
            return name + SUFFIX
        result = f"{name}_bounded{SUFFIX}" if is_masked else name + SUFFIX
        bound = LARGEST_MASK if is_masked else LARGEST
        if name in self.choice.weights:
            weight = self.choice.weights[name]
            self._once(result, lambda: self.weights.append(rounded(weight, result, bound, self.kind)))
        elif is_masked:
            self._once(result, lambda: self._cast(self._bounded(name), result, self.kind))
        else:
            self._once(result, lambda: self._round(name, result))
        return result

    def _round(self, name: str, result: str) -> None:
        self.halves.append(name)
        self._cast(name, result, self.kind)

    def _once(self, name: str, write: Any) -> None:
        if name not in self.done:
            self.done.add(name)
            write()

    def _cast(self, name: str, result: str, kind: int) -> None:
        self.nodes.append(helper.make_node("Cast", [name], [result], to=kind))

    def _bounded(self, name: str) -> str:
        result, ends = f"{name}_bounded", ("least_mask", "largest_mask")
        for end, sign in zip(ends, (-1, 1), strict=True):
            value = np.array(sign * LARGEST_MASK, np.float32)
            self._once(
                end, lambda value=value, end=end: self.weights.append(numpy_helper.from_array(value, end))
            )
        self.nodes.append(helper.make_node("Clip", [name, *ends], [result]))
        return result


def _turn_constants_into_weights(model: Any) -> None:
    """Replace nodes that only hold a tensor. TorchScript's exporter writes many weights that way."""
    kept = []
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = node.attribute[0].t
            tensor.name = node.output[0]
            model.graph.initializer.append(tensor)
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)

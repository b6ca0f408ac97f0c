"""Which nodes of a float32 graph compute in half precision.

The rules are those of PyTorch's autocast. Matrix products and convolutions are in half. Elementwise operators
and those that move data follow their inputs. Norms, exponentials, reductions and all else stay in float32.
So does the stem of a mobile network (see `_stems`).

There is one more rule: from the first product of an attention to its last, softmax included, all is in half.
Runtimes fuse such a block and accumulate its sums in float32 inside. TensorRT's builder fails on a softmax in
float32 between two products in half. The scores of any other softmax are computed in float32: an answer, such
as the angle that a gaze is averaged to, would show their rounding.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, numpy_helper

from export.element_types import element_types

PRODUCTS = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum", "MultiHeadAttention"})
# They move values. Rounding before them or after them is the same.
# fmt: off
MOVES = frozenset(
    {
        "Concat", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity",
        "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
    }
)
FOLLOWERS = MOVES | frozenset(
    {
        "Abs", "Add", "AveragePool", "Clip", "Div", "Dropout", "Elu", "Erf", "Gelu",
        "GlobalMaxPool", "HardSigmoid", "HardSwish", "LeakyRelu", "Max",
        "MaxPool", "Min", "Mul", "Neg", "PRelu", "Pad", "ReduceMax", "ReduceMin", "Relu", "Sigmoid",
        "Sub", "Tanh", "Where",
    }
)
# fmt: on
# The largest half, and the least one above zero.
LARGEST, LEAST = 65504.0, 2.0**-24
# A product of fewer weights than this gains nothing. Such are the angles that a gaze is averaged of.
MIN_PRODUCT_WEIGHTS = 256
# The channels of an image.
COLOURS = 3


class Choice:
    """The nodes of a model that compute in half.

    `kept_out` are parts of node names, which are PyTorch's module paths: the products of such nodes stay in
    float32. `too_large` are tensors that a half cannot hold: the nodes that read or write them stay in
    float32, and so does all of an attention that has one.
    """

    def __init__(self, model: Any, kept_out: Sequence[str], too_large: Collection[str]) -> None:
        self.nodes = list(model.graph.node)
        self.types = element_types(model)
        self.weights = {weight.name: weight for weight in model.graph.initializer}
        self.producers = {name: i for i, node in enumerate(self.nodes) for name in node.output if name}
        self.readers: dict[str, list[int]] = {}
        for i, node in enumerate(self.nodes):
            for name in reads(node):
                self.readers.setdefault(name, []).append(i)
        self.outputs = {output.name for output in model.graph.output}
        self.constant = self._constants()
        self.kept = {
            i
            for i, node in enumerate(self.nodes)
            if any(part in path(node) for part in kept_out)
            or not {*node.input, *node.output}.isdisjoint(too_large)
        }
        self.kept.update(self._stems())
        self.chosen = {i for i, node in enumerate(self.nodes) if self._is_product(i, node)}
        self.masked: set[int] = set()
        """Nodes of an attention from where a mask may have joined the scores, up to the softmax."""
        for block, masked in list(self._attentions()):
            if self.kept.isdisjoint(block):
                self.chosen |= block
                self.masked |= masked
            else:
                self.chosen -= block
                self.kept |= block
        self._follow()
        self._move_late()

    def floats(self, node: Any) -> list[str]:
        """Return the inputs of a node that are float32 and not constant."""
        return [
            name
            for name in node.input
            if self.types.get(name) == TensorProto.FLOAT and name not in self.constant
        ]

    def is_half(self, name: str) -> bool:
        """Return whether the node that writes a tensor computes it in half."""
        return self.producers.get(name) in self.chosen

    def _constants(self) -> set[str]:
        constant = set(self.weights)
        for node in self.nodes:
            inputs = set(filter(None, reads(node)))
            if inputs <= constant and (inputs or node.op_type == "Constant"):
                constant.update(node.output)
        return constant

    def _is_product(self, index: int, node: Any) -> bool:
        if node.op_type not in PRODUCTS or index in self.kept or not self.floats(node):
            return False
        if node.op_type in {"MatMul", "Gemm"} and node.input[1] in self.weights:
            return int(np.prod(self.weights[node.input[1]].dims)) >= MIN_PRODUCT_WEIGHTS
        return True

    def _stems(self) -> Iterator[int]:
        """Yield the convolutions of an image's colours with a depthwise one right behind them, and that one.

        The depthwise weights of a mobile network, such as MobileOne, may be large numbers that cancel out.
        They would enlarge the rounding of what they read. Both convolutions are small.
        """
        for i, node in enumerate(self.nodes):
            if self._input_channels(node) == 1 and self._is_product(i, node):
                before, products = self._walk(i, self._writers)
                if products and all(self._input_channels(self.nodes[n]) == COLOURS for n in products):
                    yield from {i, *before, *products}

    def _input_channels(self, node: Any) -> int | None:
        """Return how many channels each filter of a convolution reads, or None if it is none."""
        if node.op_type != "Conv" or node.input[1] not in self.weights:
            return None
        return int(self.weights[node.input[1]].dims[1])

    def _attentions(self) -> Iterator[tuple[set[int], set[int]]]:
        """Yield the nodes of every attention, and those of them whose values a mask may have made huge.

        Keep the products before any other softmax out.
        """
        for i, node in enumerate(self.nodes):
            if node.op_type != "Softmax":
                continue
            before, products = self._walk(i, self._writers)
            after, ends = self._walk(i, self._next)
            # A weighted sum of constants, such as of angles, is no attention.
            ends = {end for end in ends if len(self.floats(self.nodes[end])) > 1}
            if not ends:
                self.kept |= products
                self.chosen -= products
            elif products:
                scores = before | products
                masked: set[int] = set()
                for n in sorted(before):
                    if self._joins_mask(n, scores) or not masked.isdisjoint(self._writers(n)):
                        masked.add(n)
                yield scores | after | ends | {i}, masked

    def _joins_mask(self, index: int, scores: set[int]) -> bool:
        """Return whether a node joins scores with what was computed from none."""
        node = self.nodes[index]
        return any(self.producers.get(name) not in scores for name in self.floats(node)) or not all(
            self._fits(name) for name in node.input
        )

    def _walk(self, start: int, step: Any) -> tuple[set[int], set[int]]:
        """Return the followers between a node and the nearest products, and those products."""
        reaches: dict[int, bool] = {}
        products: set[int] = set()

        def visit(index: int) -> bool:
            if index not in reaches:
                node = self.nodes[index]
                if node.op_type in PRODUCTS and self.floats(node):
                    products.add(index)
                    return True
                # All of them, and not only up to the first that does.
                found = [visit(i) for i in step(index)] if node.op_type in FOLLOWERS else []
                reaches[index] = any(found)
            return reaches[index]

        for index in step(start):
            visit(index)
        return {index for index, found in reaches.items() if found}, products

    def _writers(self, index: int) -> Iterator[int]:
        for name in self.floats(self.nodes[index]):
            if name in self.producers:
                yield self.producers[name]

    def _next(self, index: int) -> Iterator[int]:
        for name in self.nodes[index].output:
            yield from self.readers.get(name, ())

    def _follow(self) -> None:
        for i, node in enumerate(self.nodes):
            if node.op_type not in FOLLOWERS or i in self.kept:
                continue
            if _is_lookup(node, self.weights) or (
                (floats := self.floats(node))
                and all(self.is_half(name) for name in floats)
                and all(self._fits(name) for name in node.input)
            ):
                self.chosen.add(i)

    def _fits(self, name: str) -> bool:
        """Return whether a half can hold a constant. It can hold no mask's, which are huge or infinite."""
        if name not in self.weights or self.types.get(name) != TensorProto.FLOAT:
            return True
        values = np.abs(numpy_helper.to_array(self.weights[name]))
        return bool((values <= LARGEST).all() and (not values.any() or values.max() >= LEAST))

    def _move_late(self) -> None:
        """Let what is only moved before it is rounded be rounded first: fewer bytes move."""
        for i in reversed(range(len(self.nodes))):
            node = self.nodes[i]
            if (
                node.op_type in MOVES
                and i not in self.chosen | self.kept
                and self.types.get(node.input[0]) == TensorProto.FLOAT
                and self.outputs.isdisjoint(node.output)
            ):
                readers = {reader for name in node.output for reader in self.readers.get(name, ())}
                if (
                    readers
                    and readers <= self.chosen - self.masked
                    and not self._crashes(node, readers)
                    and not self._moves_mask(node, readers)
                ):
                    self.chosen.add(i)

    def _crashes(self, node: Any, readers: Collection[int]) -> bool:
        """Return whether ONNX Runtime 1.32 would crash on a CPU as it loads the file.

        It does on a cast to half, a transpose, and a product with weights, one behind the other.
        """
        return node.op_type == "Transpose" and any(
            self.nodes[reader].op_type == "MatMul" and self.nodes[reader].input[1] in self.constant
            for reader in readers
        )

    def _moves_mask(self, node: Any, readers: Collection[int]) -> bool:
        return any(
            name in node.output and is_mask(self.nodes[reader], place)
            for reader in readers
            for place, name in enumerate(self.nodes[reader].input)
        )


def is_mask(node: Any, place: int) -> bool:
    """Return whether this input of a node is what ONNX Runtime's operator adds to an attention's scores."""
    return bool(node.op_type == "MultiHeadAttention" and place == 5)


def path(node: Any) -> str:
    """Return the names of a node and of the modules that it comes from."""
    notes = [note.value for note in node.metadata_props if "name" in note.key]
    return " ".join([node.name, *notes])


def _is_lookup(node: Any, weights: dict[str, Any]) -> bool:
    """Return whether a node looks rows up in a table of weights, such as the embeddings of tokens."""
    if node.op_type != "Gather" or node.input[0] not in weights or node.input[1] in weights:
        return False
    table = weights[node.input[0]]
    return bool(table.data_type == TensorProto.FLOAT and np.prod(table.dims) >= 1 << 16)


def reads(node: Any) -> Iterator[str]:
    """Yield the names of what a node reads, also from inside of its graphs."""
    yield from node.input
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                yield from reads(inner)

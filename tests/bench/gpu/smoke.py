"""The first question to a GPU host: do the operators that the models live on run there, and rightly."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from bench.gpu.sessions import Session

Arrays = dict[str, NDArray[Any]]
_TOLERANCE = 2e-2


def operators() -> dict[str, tuple[onnx.NodeProto, Arrays]]:
    """Return a node of each operator, in half precision, and all its inputs."""
    random = np.random.default_rng(0)

    def half(*shape: int) -> NDArray[np.float16]:
        return random.standard_normal(shape).astype(np.float16)

    def node(operator: str, inputs: Arrays, **attributes: Any) -> tuple[onnx.NodeProto, Arrays]:
        return helper.make_node(operator, list(inputs), ["y"], **attributes), inputs

    return {
        "MatMul": node("MatMul", {"a": half(2, 128, 256), "b": half(256, 128)}),
        "Conv": node("Conv", {"x": half(2, 16, 32, 32), "w": half(16, 16, 3, 3)}, pads=[1, 1, 1, 1]),
        "LayerNormalization": node(
            "LayerNormalization", {"x": half(4, 128), "scale": half(128), "bias": half(128)}, axis=-1
        ),
        "MultiHeadAttention": node(
            "MultiHeadAttention",
            {"q": half(2, 196, 256), "k": half(2, 196, 256), "v": half(2, 196, 256)},
            domain="com.microsoft",
            num_heads=4,
        ),
    }


def check(device: str) -> Iterator[tuple[str, str]]:
    """Yield each operator and what is wrong with it there: an empty text if nothing is."""
    for name, (node, inputs) in operators().items():
        try:
            answer = Session(_model(node, inputs), device).run(inputs)["y"].astype(np.float64)
        except Exception as error:
            yield name, f"{type(error).__name__}: {error}"
            continue
        expected = _EXPECTED[name](*(value.astype(np.float64) for value in inputs.values()))
        far = np.abs(answer - expected).max() / np.abs(expected).max()
        # Not the other way round: NaN is never within.
        yield name, "" if far < _TOLERANCE else f"differs from NumPy by {far:.1e} of the largest value"


def _model(node: onnx.NodeProto, inputs: Arrays) -> bytes:
    graph = helper.make_graph(
        [node],
        "smoke",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT16, value.shape)
            for name, value in inputs.items()
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, None)],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def _conv(x: NDArray[Any], w: NDArray[Any]) -> NDArray[Any]:
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    product: NDArray[Any] = np.einsum("bchwij,ocij->bohw", windows, w)
    return product


def _norm(x: NDArray[Any], scale: NDArray[Any], bias: NDArray[Any]) -> NDArray[Any]:
    centred = x - x.mean(-1, keepdims=True)
    normed: NDArray[Any] = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * scale + bias
    return normed


def _attention(*tensors: NDArray[Any]) -> NDArray[Any]:
    batch, length, width = tensors[0].shape
    q, k, v = (each.reshape(batch, length, 4, width // 4).transpose(0, 2, 1, 3) for each in tensors)
    scores = q @ k.swapaxes(-1, -2) / (width // 4) ** 0.5
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    attended: NDArray[Any] = (weights @ v).transpose(0, 2, 1, 3).reshape(batch, length, width)
    return attended


_EXPECTED: dict[str, Callable[..., NDArray[Any]]] = {
    "MatMul": np.matmul,
    "Conv": _conv,
    "LayerNormalization": _norm,
    "MultiHeadAttention": _attention,
}

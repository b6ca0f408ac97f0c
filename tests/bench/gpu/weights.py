"""Models without their weights, which are drawn again from a seed where they are needed.

Every large weight becomes its shape, mean and spread. The speed of a model does not depend on more than that,
and a model of 700 MB becomes one of 1 MB.
"""

import json
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper

# Smaller ones stay as they are, and so do tables of few values, such as masks and one-hot rows.
LEAST_NUMBERS = 4096
FEW_VALUES = 16
_NUMBERS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8}
_HALF_MAX = 65504


def strip(tensor: TensorProto) -> bool:
    """Replace the numbers of a large tensor by what `draw` needs, kept in `doc_string`; say whether it was.

    The seed comes from the values at half precision, so that the files of one model at several precisions get
    the same weights, whatever their names are there and whichever way round a matrix lies.
    """
    if tensor.data_type not in _NUMBERS or len(tensor.dims) < 2:
        return False
    values = numpy_helper.to_array(tensor)
    if values.size < LEAST_NUMBERS or _has_few(values):
        return False
    rounded = _rounded(values)
    key, turned = zlib.crc32(rounded.tobytes()), False
    if values.ndim == 2:
        # A file may hold a matrix the other way round than the next file of the model.
        other = zlib.crc32(rounded.T.tobytes())
        key, turned = min(key, other), other < key
    if turned:
        rounded = np.ascontiguousarray(rounded.T)
    # In float64: of the sum of millions of float32, the last digits depend on the order.
    mean, spread = rounded.mean(dtype=np.float64), rounded.std(dtype=np.float64)
    drawn = {"key": key, "turned": turned, "mean": float(mean), "spread": float(spread)}
    bare = TensorProto(
        name=tensor.name, dims=tensor.dims, data_type=tensor.data_type, doc_string=json.dumps(drawn)
    )
    tensor.CopyFrom(bare)
    return True


def draw(tensor: TensorProto, seed: int) -> None:
    """Give a stripped tensor numbers of its mean and spread; leave any other as it is.

    They are spread evenly, which is the quickest to draw, and are all halves, so that float32 and half
    precision compute with the same weights.
    """
    if not tensor.doc_string:
        return
    drawn = json.loads(tensor.doc_string)
    random = np.random.default_rng([seed, drawn["key"]])
    dims = tuple(tensor.dims)
    values = random.random(dims[::-1] if drawn["turned"] else dims, np.float32)
    values -= 0.5
    values *= drawn["spread"] * 12**0.5
    values += drawn["mean"]
    if drawn["turned"]:
        values = np.ascontiguousarray(values.T)
    dtype = _dtype(tensor)
    if dtype == np.uint8:
        values = values.round().clip(0, 255)
    tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16).astype(dtype), tensor.name))


def strip_model(model: ModelProto) -> int:
    """Strip all weights of a model; return how many were."""
    return sum(strip(weight) for weight in model.graph.initializer)


def draw_model(model: ModelProto, seed: int) -> None:
    """Draw all weights that `strip_model` removed."""
    for weight in model.graph.initializer:
        draw(weight, seed)


def of_arrays(arrays: dict[str, NDArray[Any]]) -> ModelProto:
    """Return a model that holds nothing but these arrays, to be stripped and drawn like weights."""
    model = ModelProto()
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in arrays.items())
    return model


def to_arrays(model: ModelProto) -> dict[str, NDArray[Any]]:
    """Return the arrays of `of_arrays`."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def _has_few(values: NDArray[Any]) -> bool:
    # The first numbers decide nearly always, and millions take long to sort.
    first = values.reshape(-1)[:LEAST_NUMBERS]
    return len(np.unique(first)) <= FEW_VALUES and len(np.unique(values)) <= FEW_VALUES


def _rounded(values: NDArray[Any]) -> NDArray[np.float16]:
    return (
        values.clip(-_HALF_MAX, _HALF_MAX).astype(np.float16)
        if values.dtype != np.uint8
        else values.astype(np.float16)
    )


def _dtype(tensor: TensorProto) -> np.dtype[Any]:
    from onnx.helper import tensor_dtype_to_np_dtype

    return tensor_dtype_to_np_dtype(tensor.data_type)

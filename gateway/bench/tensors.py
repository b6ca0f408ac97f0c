"""Tensors of requests to Triton, as arrays."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

_TYPES = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}


@dataclass(frozen=True, slots=True)
class TensorRequest:
    """What a model is asked."""

    model: str
    inputs: dict[str, NDArray[np.generic]]
    outputs: tuple[str, ...]


def read_request(content: bytes) -> TensorRequest:
    """Read a ModelInferRequest. Raises ValueError for one whose tensors are elsewhere."""
    request = service_pb2.ModelInferRequest.FromString(content)
    if len(request.raw_input_contents) != len(request.inputs):
        raise ValueError("the tensors are not in the request: shared memory cannot be recorded")
    inputs = {
        tensor.name: np.frombuffer(raw, _TYPES[tensor.datatype]).reshape(tuple(tensor.shape))
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
    }
    return TensorRequest(request.model_name, inputs, tuple(output.name for output in request.outputs))

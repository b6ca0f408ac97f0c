"""Triton's inference messages, written and read with as few copies of the tensors as gRPC allows.

A message is a protobuf header and the tensors' bytes. Protobuf would copy the bytes into the message, and the
message into what is sent. Here they are put beside the header as protobuf has them on the wire.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2
from tritonclient.utils import np_to_triton_dtype, triton_to_np_dtype

from gateway.message_pieces import varint
from gateway.triton import Tensors

# Tells the region of shared memory and the offset where the server can read an input, if it can.
Place = Callable[[NDArray[Any]], tuple[str, int] | None]

_BYTES = 2  # protobuf's wire type


def _key(message: Any, field: str) -> bytes:
    """Return what stands before the length of a field of bytes. These fields' numbers are below 16."""
    return bytes([message.DESCRIPTOR.fields_by_name[field].number << 3 | _BYTES])


_RAW_INPUT = _key(service_pb2.ModelInferRequest, "raw_input_contents")
_RAW_OUTPUT = _key(service_pb2.ModelInferResponse, "raw_output_contents")
_VARINT = re.compile(rb"[\x80-\xff]{0,9}[\x00-\x7f]")


def nowhere(_array: NDArray[Any]) -> None:
    """Say of each tensor that it is sent."""


def request(model: str, inputs: Tensors, outputs: Sequence[str], place: Place = nowhere) -> bytes:
    """Return a ModelInferRequest."""
    header = service_pb2.ModelInferRequest(model_name=model)
    parts: list[bytes | memoryview[int]] = [b""]
    for name, array in inputs.items():
        tensor = header.inputs.add(name=name, datatype=np_to_triton_dtype(array.dtype), shape=array.shape)
        if (found := place(array)) is None:
            parts.append(_RAW_INPUT + varint(array.nbytes))
            parts.append(np.ascontiguousarray(array).data)
        else:
            tensor.parameters["shared_memory_region"].string_param = found[0]
            tensor.parameters["shared_memory_offset"].int64_param = found[1]
            tensor.parameters["shared_memory_byte_size"].int64_param = array.nbytes
    for name in outputs:
        header.outputs.add(name=name)
    parts[0] = header.SerializeToString()
    return b"".join(parts)


def answer(message: bytes) -> dict[str, NDArray[Any]]:
    """Return the tensors of a ModelInferResponse by name. They lie in the message, and cannot be written."""
    header, contents, at = [], [], 0
    while at < len(message):
        start, key = at, message[at : at + 1]
        if key[0] & 7 != _BYTES:
            raise ValueError("an answer of Triton has a field of another type than bytes")
        size, at = _read_varint(message, at + 1)
        if key == _RAW_OUTPUT:
            contents.append((at, size))
        else:
            header.append(message[start : at + size])
        at += size
    if at != len(message):
        raise ValueError("an answer of Triton ends within a field")
    outputs = service_pb2.ModelInferResponse.FromString(b"".join(header)).outputs
    return {
        output.name: _array(message, start, size, output)
        for output, (start, size) in zip(outputs, contents, strict=True)
    }


def _array(message: bytes, start: int, size: int, output: Any) -> NDArray[Any]:
    kind = np.dtype(triton_to_np_dtype(output.datatype))
    array = np.frombuffer(message, kind, size // kind.itemsize, start).reshape(tuple(output.shape))
    # NumPy copies what is not aligned part by part, at each use.
    return array if array.flags.aligned else array.copy()


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    """Return the number at a place, and the place after it."""
    found = _VARINT.match(message, at)
    if found is None:
        raise ValueError("an answer of Triton ends within a number")
    return sum((byte & 0x7F) << 7 * index for index, byte in enumerate(found[0])), found.end()

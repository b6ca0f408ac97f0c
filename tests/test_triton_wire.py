"""Messages to Triton and back: what is written by hand is what protobuf would have written."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.grpc import InferInput, service_pb2
from tritonclient.utils import np_to_triton_dtype

from gateway import triton_wire

ARRAYS: dict[str, NDArray[Any]] = {
    "image": np.arange(2 * 3 * 70, dtype=np.uint8).reshape(2, 3, 70),
    "sizes": np.array([[1, -2]], np.int32),
    "tokens": np.array([[1, -(2**40)]], np.int64),
    "is_there": np.array([[True, False, True]]),
    "half": np.array([[0.5]], np.float16),
    "turned": np.arange(12, dtype=np.float32).reshape(3, 4).T,
    "none": np.zeros((0, 4), np.float32),
    "large": np.zeros((1, 1 << 21), np.uint8),
    "last": np.array([[np.nan, -0.0]], np.float64),
}


def test_a_request_is_what_tritons_client_sends() -> None:
    expected = service_pb2.ModelInferRequest(model_name="größer")
    for name, array in ARRAYS.items():
        tensor = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(np.ascontiguousarray(array))
        expected.inputs.append(tensor._get_tensor())
        expected.raw_input_contents.append(tensor._get_content() or b"")
    for name in ("one", "two"):
        expected.outputs.add(name=name)
    message = triton_wire.request("größer", ARRAYS, ("one", "two"))
    assert service_pb2.ModelInferRequest.FromString(message) == expected


def test_what_lies_in_shared_memory_is_only_named() -> None:
    kept = ARRAYS["sizes"]
    message = triton_wire.request(
        "sam", ARRAYS, ("mask",), lambda array: ("region", 4096) if array is kept else None
    )
    request = service_pb2.ModelInferRequest.FromString(message)
    assert len(request.raw_input_contents) == len(ARRAYS) - 1
    assert list(request.inputs[1].shape) == [1, 2]
    parameters = {
        key: getattr(value, value.WhichOneof("parameter_choice"))
        for key, value in request.inputs[1].parameters.items()
    }
    assert parameters == {
        "shared_memory_region": "region",
        "shared_memory_offset": 4096,
        "shared_memory_byte_size": 8,
    }
    assert not any(tensor.parameters for tensor in request.inputs if tensor.name != "sizes")


@pytest.mark.parametrize("name_of_model", ["m" * length for length in range(1, 9)])
def test_an_answer_is_read_wherever_its_tensors_lie(name_of_model: str) -> None:
    """Names of several lengths: so the tensors begin at every alignment."""
    written = service_pb2.ModelInferResponse(model_name=name_of_model, model_version="1", id="7")
    written.parameters["sequence_id"].int64_param = 300
    for name, array in ARRAYS.items():
        written.outputs.add(name=name, datatype=np_to_triton_dtype(array.dtype), shape=array.shape)
        written.raw_output_contents.append(np.ascontiguousarray(array).tobytes())
    answer = triton_wire.answer(written.SerializeToString())
    assert list(answer) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert answer[name].dtype == array.dtype
        assert answer[name].flags.aligned
        np.testing.assert_array_equal(answer[name], array)


def test_what_is_no_answer_is_refused() -> None:
    written = service_pb2.ModelInferResponse(raw_output_contents=[bytes(300)])
    written.outputs.add(name="out", datatype="FP32", shape=[75])
    message = written.SerializeToString()
    assert triton_wire.answer(message)["out"].shape == (75,)
    for cut in (message[:-1], message[:-301], message + b"\x08\x01", message + b"\x32"):
        with pytest.raises(ValueError, match="an answer of Triton"):
            triton_wire.answer(cut)
    assert triton_wire.answer(b"") == {}

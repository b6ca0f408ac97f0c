"""`backends/onnxruntime/model.py`, as a client of a real Triton sees it."""

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from gateway.embedded import EmbeddedTriton, EmbeddedTritonError, runtime
from gateway.embedded.environment import ensure_environment
from inference_counts import InferenceCounts

Array = npt.NDArray[Any]
ROOT = Path(__file__).parents[2]
BACKEND = ROOT / "gateway/embedded/backends/onnxruntime/model.py"


def infer(server: Any, model: str, feed: dict[str, Array], outputs: Sequence[str] = ()) -> dict[str, Array]:
    inputs = []
    for name, array in feed.items():
        tensor = tritonclient.grpc.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    requested = [tritonclient.grpc.InferRequestedOutput(name) for name in outputs] or None
    result = server.client.infer(model, inputs, outputs=requested)
    return {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}


def infer_at_once(server: Any, model: str, feeds: Sequence[dict[str, Array]]) -> list[Any]:
    """Send all requests together; an error takes the place of its answer."""

    def one(feed: dict[str, Array]) -> Any:
        try:
            return infer(server, model, feed)
        except InferenceServerException as error:
            return error

    with ThreadPoolExecutor(len(feeds)) as executor:
        return list(executor.map(one, feeds))


def rows(first: float, count: int, width: int) -> Array:
    return np.arange(first, first + count * width, dtype=np.float32).reshape(count, width)


def test_answers_equal_numpy(server: Any) -> None:
    x = rows(0, 2, 5)
    answer = infer(server, "scale", {"x": x})
    np.testing.assert_array_equal(answer["y"], 2 * x)
    np.testing.assert_array_equal(answer["largest"], x.max(axis=1, keepdims=True))


def test_every_type_passes_through(server: Any) -> None:
    feed = {
        "bool_in": np.array([[True, False]]),
        "int32_in": np.array([[-1, 2**31 - 1]], np.int32),
        "int64_in": np.array([[-1, 2**63 - 1]], np.int64),
        "uint8_in": np.array([[0, 255]], np.uint8),
        "fp16_in": np.array([[0.5, -65504]], np.float16),
        "fp32_in": np.array([[1e-38, np.inf]], np.float32),
    }
    answer = infer(server, "identities", feed)
    assert len(answer) == len(feed)
    for name, array in feed.items():
        output = answer[name.replace("_in", "_out")]
        assert output.dtype == array.dtype
        np.testing.assert_array_equal(output, array)


def test_requests_sent_together_are_joined_and_each_gets_its_own_answer(server: Any) -> None:
    feeds = [{"x": rows(10 * i, 1 + i % 2, 4)} for i in range(8)]
    counts = InferenceCounts(server.client)
    before = counts.settled("scale")
    answers = infer_at_once(server, "scale", feeds)
    for feed, answer in zip(feeds, answers, strict=True):
        np.testing.assert_array_equal(answer["y"], 2 * feed["x"])
        np.testing.assert_array_equal(answer["largest"], feed["x"].max(axis=1, keepdims=True))
    after = counts.settled("scale", at_least=before.inferences + 12)
    assert after.inferences - before.inferences == 12
    assert after.executions - before.executions < 8


@pytest.mark.parametrize("model", ["scale", "scale_ragged"])
def test_requests_of_different_shapes_sent_together_are_answered_right(server: Any, model: str) -> None:
    feeds = [{"x": rows(10 * i, 1 + i % 2, 3 + i % 3)} for i in range(9)]
    for feed, answer in zip(feeds, infer_at_once(server, model, feeds), strict=True):
        np.testing.assert_array_equal(answer["y"], 2 * feed["x"])


def test_only_requested_outputs_are_returned(server: Any) -> None:
    assert infer(server, "scale", {"x": rows(0, 1, 2)}, ["largest"]).keys() == {"largest"}


def test_a_bad_request_fails_alone(server: Any) -> None:
    feeds = [{"index": np.array([[index]], np.int64)} for index in (1, 99, 3, 2)]
    counts = InferenceCounts(server.client)
    before = counts.settled("lookup")
    first, bad, third, fourth = infer_at_once(server, "lookup", feeds)
    assert [answer["row"].item() for answer in (first, third, fourth)] == [10, 30, 20]
    assert isinstance(bad, InferenceServerException)
    assert bad.status() == "StatusCode.INVALID_ARGUMENT"
    assert "out of data bounds" in bad.message()
    # They did share an execution with it.
    assert counts.settled("lookup").executions - before.executions < 4
    assert infer(server, "lookup", feeds[0])["row"].item() == 10


def test_an_incomplete_configuration_is_completed_like_natively(server: Any) -> None:
    config = server.client.get_model_config("scale_completed", as_json=True)["config"]
    assert config["max_batch_size"] == 4
    assert [(t["name"], t["data_type"], t["dims"]) for t in config["input"]] == [("x", "TYPE_FP32", ["-1"])]
    assert [(t["name"], t["dims"]) for t in config["output"]] == [("y", ["-1"]), ("largest", ["1"])]
    x = rows(0, 3, 2)
    answer = infer(server, "scale_completed", {"x": x})
    np.testing.assert_array_equal(answer["largest"], x.max(axis=1, keepdims=True))


def test_a_file_without_batch_dimension_in_another_version_under_another_name(server: Any) -> None:
    config = server.client.get_model_config("fixed", as_json=True)["config"]
    assert config.get("max_batch_size", 0) == 0
    answer = infer(server, "fixed", {"x": np.ones(3, np.float32)})
    np.testing.assert_array_equal(answer["y"], [2, 3, 4])
    np.testing.assert_array_equal(answer["total"], [9])


def test_a_configuration_that_the_file_does_not_fit_is_refused_by_name(
    tmp_path: Path, add_model: Any, graphs: dict[str, onnx.ModelProto]
) -> None:
    config = """
        max_batch_size: 8
        input [{{ name: '{name}' data_type: {data_type} dims: [ {dims} ] }}]
        output [{{ name: 'row' data_type: TYPE_FP32 dims: [ {output} ] }}]
        instance_group [{{ count: 1 }}]
    """
    right = {"name": "index", "data_type": "TYPE_INT64", "dims": "1", "output": "1"}
    wrong = {
        "wrong_name": {"name": "indexes"},
        "wrong_type": {"data_type": "TYPE_INT32"},
        "wrong_dims": {"dims": "2"},
        "wrong_rank": {"output": "1, 1"},
    }
    for name, change in wrong.items():
        add_model(tmp_path, name, graphs["table_lookup"], config.format(**right | change))
    fixed = config.format(name="x", data_type="TYPE_FP32", dims="3", output="3").replace("row", "y")
    add_model(tmp_path, "no_batch", graphs["fixed_sum"], fixed)
    add_model(tmp_path, "broken", graphs["fixed_sum"], fixed).write_bytes(b"not ONNX")
    with pytest.raises(EmbeddedTritonError) as caught:
        # Complete as they are, they load in half the time without being completed.
        EmbeddedTriton(tmp_path, extra_arguments=["--disable-auto-complete-config"]).start()
    message = str(caught.value)
    for words in (
        "model 'wrong_name': config.pbtxt lacks the ONNX file's input 'index'",
        "model 'wrong_type', input 'index': config.pbtxt says TYPE_INT32, the ONNX file TYPE_INT64",
        "model 'wrong_dims', input 'index': config.pbtxt says shape [-1, 2], the ONNX file [-1, 1]",
        "model 'wrong_rank', output 'row': config.pbtxt says shape [-1, 1, 1], the ONNX file [-1, 1]",
        "model 'no_batch', input 'x': max_batch_size is 8, but the ONNX file's shape [3] does not begin",
        "broken/1/model.onnx failed",
    ):
        assert words in message
    assert message.count("\n") < 12


def test_numpy_2_is_refused(
    tmp_path: Path, add_model: Any, graphs: dict[str, onnx.ModelProto], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real environment in all but NumPy, of which it gets the tests' own."""
    assert np.__version__ >= "2"
    real = ensure_environment(lambda _: None)
    fake = tmp_path / "cache" / "environment"
    for path in ("bin", "pyvenv.cfg"):
        (fake / path).parent.mkdir(parents=True, exist_ok=True)
        (fake / path).symlink_to(real / path)
    packages = next(real.glob("lib/*/site-packages"))
    fake_packages = fake / packages.relative_to(real)
    fake_packages.mkdir(parents=True)
    for entry in packages.iterdir():
        if not entry.name.startswith("numpy"):
            (fake_packages / entry.name).symlink_to(entry)
    for entry in Path(np.__file__).parents[1].glob("numpy*"):
        (fake_packages / entry.name).symlink_to(entry)
    monkeypatch.setattr(runtime, "ensure_environment", lambda *_: fake)

    repository = tmp_path / "repository"
    add_model(repository, "fixed", graphs["fixed_sum"], "")
    with pytest.raises(EmbeddedTritonError, match=r"needs NumPy 1\.x, not 2"):
        EmbeddedTriton(repository).start()


@pytest.mark.parametrize(
    "program",
    [
        "import export",
        # NumPy 2 is refused, but only after that.
        "import runpy, sys, types; sys.modules['triton_python_backend_utils'] = types.ModuleType('stub')\n"
        f"sys.path.append({str(BACKEND.parent)!r})\n"
        f"try: runpy.run_path({str(BACKEND)!r})\nexcept RuntimeError: pass",
    ],
    ids=["exporter", "backend"],
)
def test_onnx_runtime_reports_to_nobody(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not if the operator has not said so: at its start it would, over the network."""
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    ending = "\nimport os, sys; print(os.environ['ORT_DISABLE_TELEMETRY'], 'onnxruntime' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program + ending], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1 False\n"

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torchvision import transforms  # type: ignore[import-untyped]

from export import gaze, gaze_network, onnx_file, triton_config
from export.errors import ExportError
from export.half import Precision
from export.weights import Options

TINY = Options(weights="random", size="tiny")


def run(path: Path, face: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (answer,) = session.run(["yaw_pitch"], {"face": face})
    return np.asarray(answer)


def faces(batch: int, size: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(5).integers(0, 256, (batch, size, size, 3), np.uint8)


@torch.no_grad()
def test_graph_equals_torchvisions_transform_and_the_authors_decoding(tmp_path: Path) -> None:
    network = gaze_network.build(TINY)
    (placed,) = onnx_file.place(gaze.prepare(TINY), tmp_path)
    images = faces(4, 64)
    transform = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    )
    # The first output is the yaw, though the authors' pipeline calls it pitch.
    yaw, pitch = network(torch.stack([transform(image) for image in images]))
    bins = torch.arange(90, dtype=torch.float32)
    expected = [((logits.softmax(1) * bins).sum(1) * 4 - 180) * np.pi / 180 for logits in (yaw, pitch)]
    answer = run(placed.path, images)
    np.testing.assert_allclose(answer, torch.stack(expected, 1), atol=2e-5)
    assert answer.std(0).min() > math.radians(5)


def test_committed_config_is_that_of_the_default_variant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The sizes of the true one, the layers of the toy.
    toy = gaze_network.build(TINY)
    monkeypatch.setattr(gaze_network, "build", lambda options: toy)
    onnx_file.place(gaze.prepare(Options(weights="random")), tmp_path)
    template = triton_config.template("gaze")
    assert (tmp_path / "gaze" / "config.pbtxt").read_text().startswith(template.read_text())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(), r"download L2CSNet_gaze360.pkl"),
        (Options(weights="random", revision="main"), "no hub has L2CS-Net's weights"),
        (Options(weights="random", variant="resnet18"), "no variant 'resnet18' of a checkpoint"),
        (Options(weights="/nowhere.pkl"), "There is no file /nowhere.pkl; --weights takes random"),
        (Options(weights="/nowhere.onnx"), "There is no file /nowhere.onnx"),
    ],
)
def test_options_that_cannot_be(options: Options, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        gaze.prepare(options)


@pytest.fixture
def ready(tmp_path: Path) -> Callable[..., Path]:
    """A ready file of L2CS-Net's kind, for a batch of one, with outputs in the order of the names."""

    def write(names: tuple[str, str] = ("yaw", "pitch"), width: int = 64) -> Path:
        path = tmp_path / "my-gaze net.onnx"
        with warnings.catch_warnings():
            # PyTorch's older exporter warns of itself.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                gaze_network.build(TINY),
                (torch.zeros(1, 3, 64, width),),
                str(path),
                input_names=["input"],
                output_names=list(names),
                dynamo=False,
                opset_version=13,
            )
        return path

    return write


@pytest.mark.parametrize("swapped", [False, True])
def test_a_ready_file_goes_by_its_outputs_names(
    ready: Callable[..., Path], tmp_path: Path, swapped: bool
) -> None:
    path = ready(("pitch", "yaw") if swapped else ("yaw", "pitch"))
    export = gaze.prepare(Options(weights=str(path)))
    assert export.graphs[0].parameters == {
        "family": "gaze",
        "variant": "my_gaze_net",
        "face_size": "64",
        "crop_size": "64",
    }
    (placed,) = onnx_file.place(export, tmp_path / "repository")
    assert (placed.origin, placed.error < 1e-5) == ("my-gaze net.onnx", True)
    images = faces(5, 64)
    expected = gaze.prepare(TINY).graphs[0].reference({"face": images}, {})["yaw_pitch"]
    np.testing.assert_allclose(
        run(placed.path, images), expected[:, ::-1] if swapped else expected, atol=2e-5
    )


def test_other_files_are_refused(ready: Callable[..., Path]) -> None:
    with pytest.raises(ExportError, match="is not of L2CS-Net's kind"):
        gaze.prepare(Options(weights=str(ready(("yaw", "roll")))))
    with pytest.raises(ExportError, match="takes faces of 64x96 pixels; they must be square"):
        gaze.prepare(Options(weights=str(ready(width=96))))


@pytest.mark.parametrize("precision", [Precision.fp32, Precision.fp16, Precision.fp16_weights])
def test_mobileone(data: Callable[[str], Path], tmp_path: Path, precision: Precision) -> None:
    export = gaze.prepare(Options(weights=str(data("gaze/mobileone_s0_gaze.onnx"))))
    assert export.graphs[0].parameters["variant"] == "mobileone_s0_gaze"
    (placed,) = onnx_file.place(export, tmp_path, precision=precision)
    assert placed.error < (1e-5 if precision is Precision.fp32 else 0.05)

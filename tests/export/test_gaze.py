import math
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torchvision import transforms  # type: ignore[import-untyped]
from torchvision.models import resnet50  # type: ignore[import-untyped]

from export import gaze, onnx_file, triton_config
from export.errors import ExportError
from export.gaze import expected_angles
from export.half import Precision
from export.weights import Options

TINY = Options(weights="random", size="tiny")


def run(path: Path, face: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (answer,) = session.run(["yaw_pitch"], {"face": face})
    return np.asarray(answer)


def faces(batch: int, size: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(5).integers(0, 256, (batch, size, size, 3), np.uint8)


def test_an_angle_is_the_expected_bin() -> None:
    for index, degrees in ((0, -180), (45, 0), (89, 176)):
        logits = torch.full((90,), -1e9)
        logits[index] = 0
        assert math.degrees(float(expected_angles(logits))) == pytest.approx(degrees, abs=1e-4)
    logits = torch.full((90,), -1e9)
    logits[45], logits[46] = math.log(3), 0
    assert math.degrees(float(expected_angles(logits))) == pytest.approx(1, abs=1e-4)


def test_a_mirrored_face_has_the_mirrored_yaw() -> None:
    """Bin i is 4 i - 180 degrees, so its mirror is bin 90 - i; only -180 degrees, bin 0, has none."""
    logits = torch.randn(50, 90, generator=torch.Generator().manual_seed(0))
    logits[:, 0] = -torch.inf
    mirrored = torch.cat([logits[:, :1], logits[:, 1:].flip(1)], 1)
    torch.testing.assert_close(expected_angles(mirrored), -expected_angles(logits), rtol=0, atol=2e-6)


@torch.no_grad()
def test_graph_equals_torchvisions_transform_and_the_authors_decoding(tmp_path: Path) -> None:
    network = gaze.build(TINY)
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
    toy = gaze.build(TINY)
    monkeypatch.setattr(gaze, "build", lambda options: toy)
    onnx_file.place(gaze.prepare(Options(weights="random")), tmp_path)
    template = triton_config.template("gaze")
    assert (tmp_path / "gaze" / "config.pbtxt").read_text() == template.read_text()


def test_a_seed_is_its_weights_and_leaves_the_callers_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    one, same = (gaze.build(TINY).state_dict() for _ in range(2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(one[name], same[name]) for name in one)


def test_the_layers_are_those_of_a_published_checkpoint() -> None:
    """A ResNet-50 but for its last layer, as L2CS-Net's authors start from torchvision's."""
    with torch.device("meta"):
        ours = {name: value.shape for name, value in gaze.L2cs([3, 4, 6, 3]).state_dict().items()}
        trunk = {name: value.shape for name, value in resnet50().state_dict().items()}
    heads = {f"fc_{name}_gaze.{kind}" for name in ("yaw", "pitch") for kind in ("weight", "bias")}
    assert ours.keys() - trunk.keys() == heads
    assert {name: shape for name, shape in ours.items() if name not in heads} == {
        name: shape for name, shape in trunk.items() if not name.startswith("fc.")
    }
    assert tuple(ours["fc_yaw_gaze.weight"]) == (90, 2048)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """As the authors publish theirs, with a layer that nothing uses."""
    state = gaze.build(Options(weights="random", size="tiny", seed=3)).state_dict()
    state["fc_finetune.weight"], state["fc_finetune.bias"] = torch.ones(3, 259), torch.ones(3)
    torch.save(state, tmp_path / "L2CSNet.pkl")
    return tmp_path / "L2CSNet.pkl"


def test_a_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    (placed,) = onnx_file.place(
        gaze.prepare(Options(weights=str(checkpoint), size="tiny")), tmp_path / "repository"
    )
    seeded = gaze.prepare(Options(weights="random", size="tiny", seed=3)).graphs[0]
    images = faces(3, 64)
    np.testing.assert_allclose(
        run(placed.path, images), seeded.reference({"face": images}, {})["yaw_pitch"], atol=2e-5
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("layer1.0.conv1.weight"), "is not L2CS-Net's ResNet-50 with 90 bins"),
        (
            lambda state: state.update({"fc_yaw_gaze.weight": torch.ones(28, 256)}),
            "is not L2CS-Net's ResNet-50 with 90 bins",
        ),
        (lambda state: state.update({"code": os.getcwd}), "is not a checkpoint of weights alone"),
        (lambda state: state.update({"epoch": 3}), "is not a state dict"),
    ],
)
def test_other_checkpoints_are_refused(checkpoint: Path, change: Callable[[Any], Any], message: str) -> None:
    state = torch.load(checkpoint, weights_only=True)
    change(state)
    torch.save(state, checkpoint)
    with pytest.raises(ExportError, match=message):
        gaze.prepare(Options(weights=str(checkpoint), size="tiny"))


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
                gaze.build(TINY),
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


@pytest.mark.parametrize("precision", Precision)
def test_mobileone(data: Callable[[str], Path], tmp_path: Path, precision: Precision) -> None:
    export = gaze.prepare(Options(weights=str(data("gaze/mobileone_s0_gaze.onnx"))))
    assert export.graphs[0].parameters["variant"] == "mobileone_s0_gaze"
    (placed,) = onnx_file.place(export, tmp_path, precision=precision)
    assert placed.error < (1e-5 if precision is Precision.fp32 else 0.05)

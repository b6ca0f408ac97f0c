import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models import resnet50  # type: ignore[import-untyped]

from export import gaze_network
from export.errors import ExportError
from export.gaze_network import expected_angles
from export.weights import Options

TINY = Options(weights="random", size="tiny")


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


def test_a_seed_is_its_weights_and_leaves_the_callers_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    one, same = (gaze_network.build(TINY).state_dict() for _ in range(2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(one[name], same[name]) for name in one)


def test_the_layers_are_those_of_a_published_checkpoint() -> None:
    """A ResNet-50 but for its last layer, as L2CS-Net's authors start from torchvision's."""
    with torch.device("meta"):
        ours = {name: value.shape for name, value in gaze_network.L2cs([3, 4, 6, 3]).state_dict().items()}
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
    state = gaze_network.build(Options(weights="random", size="tiny", seed=3)).state_dict()
    state["fc_finetune.weight"], state["fc_finetune.bias"] = torch.ones(3, 259), torch.ones(3)
    torch.save(state, tmp_path / "L2CSNet.pkl")
    return tmp_path / "L2CSNet.pkl"


def test_a_checkpoint(checkpoint: Path) -> None:
    loaded = gaze_network.build(Options(weights=str(checkpoint), size="tiny")).state_dict()
    seeded = gaze_network.build(Options(weights="random", size="tiny", seed=3)).state_dict()
    assert loaded.keys() == seeded.keys()
    assert all(torch.equal(loaded[name], seeded[name]) for name in seeded)


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
        gaze_network.build(Options(weights=str(checkpoint), size="tiny"))

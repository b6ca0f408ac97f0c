from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from export.demo import training
from export.demo.training import Recipe, save_halves, train

RECIPE = Recipe(steps=40, learning_rate=0.05, warmup=4, report_every=10, average=0.9)
TRUTH = torch.tensor([[1.0, -2.0, 3.0]])


class Line:
    """Learns the weights of a linear function."""

    def __init__(self, device: torch.device) -> None:
        self.network: nn.Module = nn.Linear(3, 1, device=device)
        self.progress: list[float] = []
        self.saved: Tensor | None = None

    def loss(self, random: np.random.Generator, progress: float) -> dict[str, Tensor]:
        assert self.network.training
        self.progress.append(progress)
        x = torch.from_numpy(random.normal(size=(16, 3)).astype(np.float32))
        return {"square": (self.network(x) - x @ TRUTH.T).square().mean()}

    def report(self) -> str:
        assert not self.network.training
        return "fine"

    def save(self, folder: Path) -> None:
        assert not self.network.training
        save_halves(self.network.state_dict(), folder / "model.safetensors")


def weights(folder: Path) -> Tensor:
    return load_file(folder / "model.safetensors")["weight"].float()


def test_it_learns_and_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = Recipe(steps=400, learning_rate=0.05, warmup=10, weight_decay=0)
    train(Line, recipe, "line", state=tmp_path / "line.pt", weights=tmp_path / "out")
    np.testing.assert_allclose(weights(tmp_path / "out"), TRUTH, atol=0.05)
    assert "step 400 of 400" in capsys.readouterr().err


def test_a_stopped_training_ends_as_one_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(Line, RECIPE, "line", state=tmp_path / "whole.pt", weights=tmp_path / "whole")

    class StoppedError(Exception):
        pass

    class Stopping(Line):
        def loss(self, random: np.random.Generator, progress: float) -> dict[str, Tensor]:
            if progress >= 0.5:
                raise StoppedError
            return super().loss(random, progress)

    monkeypatch.setattr(training, "SAVE_EVERY_S", -1)
    with pytest.raises(StoppedError):
        train(Stopping, RECIPE, "line", state=tmp_path / "part.pt", weights=tmp_path / "part")
    resumed: list[Line] = []

    def make(device: torch.device) -> Line:
        resumed.append(Line(device))
        return resumed[-1]

    train(make, RECIPE, "line", state=tmp_path / "part.pt", weights=tmp_path / "part")
    assert resumed[0].progress[0] == 0.5
    np.testing.assert_array_equal(weights(tmp_path / "part"), weights(tmp_path / "whole"))


def test_what_is_kept_is_the_average(tmp_path: Path) -> None:
    # Without an average the last step's weights are kept.
    train(Line, RECIPE, "line", state=tmp_path / "a.pt", weights=tmp_path / "a")
    last = torch.load(tmp_path / "a.pt", weights_only=True)
    kept = weights(tmp_path / "a")
    assert not torch.allclose(kept, last["network"]["weight"], atol=1e-3)
    torch.testing.assert_close(kept, last["averaged"]["weight"], atol=1e-2, rtol=0)


def test_halves_on_disk(tmp_path: Path) -> None:
    save_halves({"w": torch.tensor([1.0, 1 / 3]), "n": torch.tensor([7])}, tmp_path / "x.safetensors")
    state = load_file(tmp_path / "x.safetensors")
    assert state["w"].dtype == torch.float16
    assert state["n"].tolist() == [7]

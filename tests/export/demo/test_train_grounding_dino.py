from pathlib import Path

import numpy as np
import pytest
import torch

from export import grounding_dino, onnx_file, weights
from export.demo.grounding_dino_examples import draw
from export.demo.train_grounding_dino import SIZES, Learner
from export.errors import ExportError
from export.half import Precision
from export.weights import Options

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def learner() -> Learner:
    torch.manual_seed(0)
    return Learner(CPU)


@pytest.mark.long
def test_a_few_steps_help(learner: Learner) -> None:
    optimizer = torch.optim.AdamW(learner.network.parameters(), lr=1e-3)
    losses = []
    for _ in range(6):
        loss = torch.stack(list(learner.loss(np.random.default_rng(0), 0.0).values())).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(learner.network.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.long
def test_saved_weights_are_exported_as_demo(
    learner: Learner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "DEMO_WEIGHTS", tmp_path / "weights")
    with pytest.raises(ExportError, match="visiongate demo train grounding_dino"):
        grounding_dino.prepare(Options(weights="demo"))
    folder = tmp_path / "weights" / "grounding_dino"
    folder.mkdir(parents=True)
    learner.save(folder)
    halves = (folder / "model.safetensors").stat().st_size
    assert halves < 2.1 * sum(p.numel() for p in learner.network.parameters()) + 50_000
    export = grounding_dino.prepare(Options(weights="demo"))
    assert export.graphs[0].parameters["variant"] == "demo"
    [placed] = onnx_file.place(export, tmp_path / "repository", precision=Precision.fp16_weights)
    assert placed.error < 1e-3
    assert placed.megabytes < 4
    model, tokenizer, _ = grounding_dino.build(Options(weights="demo"))
    for name, value in learner.network.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value.half().float(), msg=name)
    assert tokenizer.token_to_id("star") is not None


def test_sizes_fit_their_canvas() -> None:
    for width, height in SIZES:
        one = draw(0, width, height)
        assert one.image.shape == (height, width, 3)

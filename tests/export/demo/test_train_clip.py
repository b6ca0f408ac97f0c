from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from safetensors.torch import load_file
from torch import Tensor
from tritonclient.grpc import model_config_pb2

from export import clip, clip_weights, onnx_file, weights
from export.demo import clip_vocabulary, train_clip, training
from export.demo.train_clip import Learner
from export.families.clip import DEMO_VOCABULARY
from export.weights import Options
from gateway.models.clip import ClipSpec

from .conftest import TEXTS

CPU = torch.device("cpu")


OPTIONS = Options(weights="demo")


@pytest.fixture
def folder(clip_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(weights, "DEMO_WEIGHTS", tmp_path)
    folder = tmp_path / "clip"
    folder.mkdir()
    training.save_halves(clip_model.state_dict(), folder / "model.safetensors")
    clip_vocabulary.write_vocabulary(folder / DEMO_VOCABULARY)
    return folder


def test_training_leaves_the_towers_as_they_are(clip_model: Any) -> None:
    """The text tower is trained on shorter rows than it will read."""
    ids = clip_vocabulary.tokenizer()(TEXTS)
    torch.testing.assert_close(
        train_clip.encode(clip_model, ids), clip_model.encode_text(ids), atol=1e-4, rtol=1e-4
    )


class Interrupted(Learner):
    """Stops in its third step."""

    left = 2

    def loss(self, random: np.random.Generator, progress: float) -> dict[str, Tensor]:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return super().loss(random, progress)


@pytest.mark.long
def test_a_stopped_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "SAVE_EVERY_S", -1)
    monkeypatch.setattr(train_clip, "BATCH", 16)
    recipe = replace(train_clip.RECIPE, steps=4, warmup=1, bfloat16=False)
    for name, learners in (("straight", [Learner]), ("resumed", [Interrupted, Learner])):
        for learner in learners:
            make = partial(learner, pool=12, examined=4)
            try:
                training.train(make, recipe, "clip", state=tmp_path / f"{name}.pt", weights=tmp_path / name)
            except KeyboardInterrupt:
                assert not (tmp_path / name).exists()
    straight, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("straight", "resumed"))
    assert all(torch.equal(value, resumed[name]) for name, value in straight.items())
    assert (tmp_path / "straight" / DEMO_VOCABULARY).is_file()


def test_the_loss_of_a_batch_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_clip, "BATCH", 16)
    torch.manual_seed(0)
    learner = Learner(CPU, pool=12, examined=4)
    optimizer = torch.optim.AdamW(learner.network.parameters(), lr=2e-3)
    losses = []
    for _ in range(12):
        loss = torch.stack(list(learner.loss(np.random.default_rng(0), 0).values())).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_true_captions_have_their_shares() -> None:
    """Two captions are true of the first picture, one of the second, the last of none."""
    true = np.array([[1, 1, 0, 0], [0, 0, 1, 0]], np.bool_)
    pictures, captions = torch.eye(3)[[0, 1]], torch.eye(3)[[0, 0, 1, 2]]
    terms = train_clip.contrast(pictures, captions, true, torch.tensor(np.log(100.0)))
    assert terms["to captions"].item() == pytest.approx(np.log(2) / 2, abs=1e-3)
    assert terms["to pictures"].item() == pytest.approx(0, abs=1e-3)


@pytest.mark.long
@pytest.mark.usefixtures("folder")
def test_the_exporter_reads_what_was_trained(clip_model: Any, tmp_path: Path) -> None:
    built, variant = clip_weights.build(OPTIONS)
    assert variant == "demo"
    assert all(
        torch.equal(value, built.state_dict()[name]) for name, value in clip_model.state_dict().items()
    )
    repository = tmp_path / "repository"
    # Each agrees with open_clip, which reads our vocabulary.
    placed = onnx_file.place(clip.prepare(OPTIONS), repository)
    assert {one.model for one in placed} == {"clip_image", "clip_text"}

    parameters: dict[str, str] = {}
    for one in placed:
        config = text_format.Parse(
            (repository / one.model / "config.pbtxt").read_text(), model_config_pb2.ModelConfig()
        )
        parameters |= {key: value.string_value for key, value in config.parameters.items()}
    assert (parameters["family"], parameters["variant"]) == ("clip", "demo")
    spec = ClipSpec.from_parameters(parameters, repository / "clip_text")
    assert spec.logit_scale == pytest.approx(clip_model.logit_scale.exp().item(), rel=1e-5)
    tokenize = clip_vocabulary.tokenizer()
    for text in TEXTS:
        np.testing.assert_array_equal(spec.encode(text, truncate=True), tokenize([text])[0].numpy())

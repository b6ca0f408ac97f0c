import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from export import face_detection_network, gaze, gaze_network, onnx_file, weights
from export.demo import train_gaze as trainer
from export.demo.agreement import angles_between
from export.demo.scenes import FIRST_UNSEEN_SEED, Plan, draw
from export.demo.train_face_detection import UNSEEN_PLAN, found_faces
from export.errors import ExportError
from export.gaze_network import expected_angles
from export.weights import Options

DEMO = Options(weights="demo")


def test_what_is_learnt_is_what_the_graph_reads() -> None:
    """Logits that nothing but the loss moves come to mean the angles."""
    angles = torch.tensor([[0.0, 0.3], [-0.7, 0.1], [math.radians(4), math.radians(-26)]])
    logits = torch.zeros(3, 2, 90, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(150):
        loss = torch.stack(list(trainer.gaze_loss(logits, angles).values())).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    torch.testing.assert_close(expected_angles(logits.detach()), angles, rtol=0, atol=math.radians(0.5))


def test_a_portrait_is_the_scene_around_a_face() -> None:
    scene = draw(5, 480, 360, Plan(faces=(2, 2)))
    portraits = trainer.portraits(scene)
    assert len(portraits) == len(scene.faces) == 2
    for portrait, drawn in zip(portraits, scene.faces, strict=True):
        np.testing.assert_array_equal(
            trainer.SPEC.crop(portrait.image, portrait.faces[0].box),
            trainer.SPEC.crop(scene.image, drawn.box),
        )
        np.testing.assert_array_equal(portrait.faces[0].yaw_pitch, drawn.yaw_pitch)


def test_the_loss_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "POOL", 2)
    monkeypatch.setattr(trainer, "BATCH", 8)
    torch.manual_seed(0)
    learner = trainer.Learner(torch.device("cpu"))
    optimizer = torch.optim.AdamW(learner.network.parameters(), lr=3e-3)
    losses = []
    for _ in range(15):
        loss = torch.stack(list(learner.loss(np.random.default_rng(0), 0).values())).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_training_writes_what_the_exporter_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "POOL", 2)
    monkeypatch.setattr(trainer, "BATCH", 4)
    monkeypatch.setattr(
        trainer, "unseen_scenes", lambda: [draw(FIRST_UNSEEN_SEED, 240, 180, Plan(faces=(1, 1)))]
    )
    monkeypatch.setattr(weights, "DEMO_WEIGHTS", tmp_path / "weights")
    trainer.run("cpu", 2, tmp_path / "states", tmp_path / "weights")

    file = tmp_path / "weights" / "gaze" / "model.safetensors"
    floats = {value.dtype for value in load_file(file).values() if value.is_floating_point()}
    assert floats == {torch.float16}
    assert file.stat().st_size < 1e6
    export = gaze.prepare(DEMO)
    assert export.graphs[0].parameters == {
        "family": "gaze",
        "variant": "demo",
        "face_size": "96",
        "crop_size": "96",
    }
    (placed,) = onnx_file.place(export, tmp_path / "repository")
    assert placed.error < 1e-4


def test_demo_weights_are_of_one_variant() -> None:
    with pytest.raises(ExportError, match="no variant 'resnet50' of a checkpoint; there is demo"):
        gaze.prepare(Options(weights="demo", variant="resnet50"))


@torch.no_grad()
def test_our_weights_know_where_found_faces_look() -> None:
    """Both networks one after the other, as the gateway runs them."""
    detector, network = face_detection_network.build(DEMO), gaze_network.Gaze(gaze_network.build(DEMO))
    guesses, truths = [], []
    for index in range(30):
        scene = draw(FIRST_UNSEEN_SEED + index, 480, 360, UNSEEN_PLAN)
        for face in found_faces(detector, scene.image):
            drawn = min(scene.faces, key=lambda drawn: float(np.abs(drawn.box - face.box).sum()))
            crop = trainer.SPEC.crop(scene.image, face.box)
            guesses.append(network(torch.from_numpy(crop)[None])[0][0].numpy())
            truths.append(drawn.yaw_pitch)
    assert len(truths) > 20
    assert angles_between(np.array(guesses), np.array(truths)).mean() < 6

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from export import face_detection, face_detection_network, onnx_file, weights
from export.demo import train_face_detection as trainer
from export.demo.scenes import FIRST_UNSEEN_SEED, DrawnFace, Painter, Plan, Scene, draw
from export.errors import ExportError
from export.face_detection_network import Network
from export.weights import Options
from gateway.models.face_detection import OUTPUTS, STRIDES, YuNetSpec

DEMO = Options(weights="demo")


def scene_with(*faces: tuple[float, float, float]) -> Scene:
    """Faces of these sizes at these places, (size, x, y) as shares of 320 pixels."""
    painter = Painter(np.random.default_rng(3), 320, 320)
    assert all(painter.face(size, (x, y)) for size, x, y in faces)
    return painter.scene(degraded=False)


class Perfect(Network):
    """Answers what is asked of it."""

    def __init__(self, faces: list[DrawnFace], side: int) -> None:
        super().__init__(1)
        chosen = trainer.assign(faces, side)
        places, strides = trainer.cells(side)
        values = np.full((1, len(chosen), 16), -30, np.float32)
        for cell in np.flatnonzero(chosen >= 0):
            face = faces[chosen[cell]]
            middle, extent = (face.box[:2] + face.box[2:]) / 2, face.box[2:] - face.box[:2]
            values[0, cell] = [
                *(30, 30),
                *(middle / strides[cell] - places[cell]),
                *np.log(extent / strides[cell]),
                *(face.landmarks / strides[cell] - places[cell]).ravel(),
            ]
        self.answer = torch.from_numpy(values)

    def raw(self, pixels: Tensor) -> list[Tensor]:
        """All cells, and the strides in their order."""
        counts = [(pixels.shape[-1] // stride) ** 2 for stride in STRIDES]
        return list(torch.split(self.answer, counts, 1))


def test_what_is_learnt_is_what_the_gateway_reads() -> None:
    scene = scene_with((0.1, 0.2, 0.2), (0.3, 0.7, 0.25), (0.5, 0.4, 0.7))
    network = Perfect(scene.faces, 320)
    assert all(
        term.item() < 1e-3
        for term in trainer.detection_loss(network, scene.image[None], [scene.faces]).values()
    )
    heads = {
        name: value[0].numpy()
        for name, value in zip(OUTPUTS, network(torch.zeros(1, 3, 320, 320)), strict=True)
    }
    found = YuNetSpec(320, 640).postprocess(
        heads, (320, 320), (320, 320), min_score=0.6, nms_iou_threshold=0.3, max_faces=100
    )
    assert len(found) == 3
    for drawn in scene.faces:
        nearest = min(found, key=lambda face: float(np.abs(face.box - drawn.box).sum()))
        np.testing.assert_allclose(nearest.box, drawn.box, atol=0.01)
        np.testing.assert_allclose(nearest.landmarks, drawn.landmarks, atol=0.01)
    figures = trainer.measure(network, [scene])
    assert (figures.faces, figures.found, figures.right) == (3, 3, 3)


@pytest.mark.parametrize("size", [0.08, 0.15, 0.2, 0.3, 0.45, 0.9])
def test_a_face_of_any_size_is_some_cells_to_find(size: float) -> None:
    scene = scene_with((size, 0.5, 0.5))
    chosen = trainer.assign(scene.faces, 320)
    assert 3 <= np.count_nonzero(chosen == 0) <= 20
    places, strides = trainer.cells(320)
    middles = ((places + 0.5) * strides)[chosen == 0]
    assert (middles > scene.faces[0].box[:2]).all()
    assert (middles < scene.faces[0].box[2:]).all()


def test_a_picture_without_faces_has_only_scores_to_learn() -> None:
    terms = trainer.detection_loss(Network(4), np.zeros((1, 64, 64, 3), np.uint8), [[]])
    assert {name for name, term in terms.items() if term.item() > 0} == {"cls", "obj"}


def at(image: NDArray[np.uint8], point: NDArray[np.float32]) -> list[int]:
    x, y = np.floor(point).astype(int).tolist()
    return [int(value) for value in image[y, x]]


def test_a_mirror() -> None:
    scene = scene_with((0.5, 0.4, 0.6))
    mirrored = trainer.mirrored(scene)
    (face,), (other,) = scene.faces, mirrored.faces
    assert other.yaw_pitch.tolist() == [-face.yaw_pitch[0], face.yaw_pitch[1]]
    # The person's right eye is on the left of the picture.
    assert other.landmarks[0, 0] < other.landmarks[1, 0]
    assert other.landmarks[3, 0] < other.landmarks[4, 0]
    np.testing.assert_allclose(other.landmarks[0], face.landmarks[1] * [-1, 1] + [320, 0])
    assert at(mirrored.image, other.landmarks[2]) == at(scene.image, face.landmarks[2])
    again = trainer.mirrored(mirrored)
    np.testing.assert_array_equal(again.image, scene.image)
    np.testing.assert_allclose(again.faces[0].box, face.box, atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_on_the_canvas_faces_are_where_they_are_drawn(seed: int) -> None:
    scene = draw(1, 480, 360, Plan(faces=(1, 1), shapes=(0, 0), words=(0, 0)))
    placed = trainer.on_canvas(np.random.default_rng(seed), scene, 320)
    assert max(placed.image.shape[:2]) <= 320
    factor = placed.image.shape[1] / 480
    (face,) = placed.faces
    np.testing.assert_allclose(
        face.box[2:] - face.box[:2], factor * (scene.faces[0].box[2:] - scene.faces[0].box[:2]), rtol=0.02
    )
    # The white of the eyes is the brightest there is near them, wherever they look.
    x, y = np.round(face.landmarks[0]).astype(int).tolist()
    reach = round(0.1 * float((face.box[2:] - face.box[:2]).max()))
    eye = placed.image[y - reach : y + reach, x - reach : x + reach].astype(int).sum(-1)
    assert eye.max() - eye.min() > 200


def test_the_loss_falls() -> None:
    scenes = [draw(seed, 160, 160, Plan(faces=(1, 1))) for seed in range(3)]
    torch.manual_seed(0)
    network = Network(16, 1)
    trainer.initialise(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        terms = trainer.detection_loss(
            network, np.stack([scene.image for scene in scenes]), [scene.faces for scene in scenes]
        )
        loss = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_training_writes_what_the_exporter_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "POOL", 3)
    monkeypatch.setattr(trainer, "BATCHES", ((96, 2, 1.0),))
    monkeypatch.setattr(trainer, "unseen_scenes", lambda: [draw(FIRST_UNSEEN_SEED, 120, 90)])
    monkeypatch.setattr(weights, "DEMO_WEIGHTS", tmp_path / "weights")
    trainer.run("cpu", 2, tmp_path / "states", tmp_path / "weights")

    file = tmp_path / "weights" / "face_detection" / "model.safetensors"
    assert {value.dtype for value in load_file(file).values()} == {torch.float16}
    assert file.stat().st_size < 1e6
    export = face_detection.prepare(DEMO)
    assert export.graphs[0].parameters == {
        "family": "face_detection",
        "variant": "demo",
        "canvas": "320",
        "small_faces_canvas": "640",
    }
    (placed,) = onnx_file.place(export, tmp_path / "repository")
    assert placed.error < 1e-4


def test_demo_weights_are_of_one_variant() -> None:
    with pytest.raises(ExportError, match="no variant 'yunet_n'; there is demo"):
        face_detection.prepare(Options(weights="demo", variant="yunet_n"))


def test_our_weights_find_drawn_faces_and_nothing_else() -> None:
    scenes = [draw(FIRST_UNSEEN_SEED + index, 480, 360, trainer.UNSEEN_PLAN) for index in range(30)]
    figures = trainer.measure(face_detection_network.build(DEMO), scenes)
    assert figures.right >= 0.95 * figures.faces > 20
    assert figures.right >= 0.95 * figures.found
    assert np.mean(figures.landmark_errors) < 0.03

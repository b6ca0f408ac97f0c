"""Teaches the demo's gaze network on drawn faces."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from export.demo import training
from export.demo.agreement import angles_between
from export.demo.command import main
from export.demo.scenes import Plan, Scene, draw
from export.demo.train_face_detection import mirrored, relit, unseen_scenes
from export.demo.training import Recipe
from export.families.gaze import (
    BIN_DEGREES,
    BINS,
    DEMO_FACE_SIZE,
    DEMO_LAYERS,
    DEMO_WIDTH,
    FIRST_BIN_DEGREES,
)
from export.gaze_network import Gaze as Graph
from export.gaze_network import L2cs, expected_angles
from gateway.models.gaze import GazeSpec

RECIPE = Recipe(steps=1500, learning_rate=2e-3, warmup=100, average=0.995, bfloat16=True)
BATCH = 64

# Scenes are drawn once and seen many times, each time changed, because drawing takes longer than learning.
POOL = 1200
# (width, height, plan) of the scenes, in turn.
_CROWD = Plan(shapes=(0, 0), words=(0, 0), faces=(4, 7), face_size=(0.22, 0.45))
SCENES = (
    (480, 360, _CROWD),
    (480, 360, Plan(shapes=(0, 2), words=(0, 0), faces=(1, 2))),
    (320, 240, replace(_CROWD, face_size=(0.26, 0.5))),
    (480, 360, Plan(shapes=(0, 0), words=(0, 0), faces=(1, 1), face_size=(0.6, 0.95))),
)
# How much is kept around a face, and the spread of the errors of its box's sides, as shares of its size.
MARGIN = 0.15
BOX_ERROR = 0.02

SPEC = GazeSpec(DEMO_FACE_SIZE, DEMO_FACE_SIZE)


class Learner:
    """The gaze network, and the faces that it learns from."""

    network: nn.Module

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # This layout is twice as fast on a CPU.
        net = L2cs(DEMO_LAYERS, DEMO_WIDTH).to(memory_format=torch.channels_last)
        self._graph = Graph(net).to(device)
        self.network = net
        scenes = (draw(seed, *SCENES[seed % len(SCENES)]) for seed in range(POOL))
        self._pool = [portrait for scene in scenes for portrait in portraits(scene)]

    def loss(self, random: np.random.Generator, progress: float) -> dict[str, Tensor]:
        """Return the errors of a batch: of the bins, and of the angles that they mean."""
        crops, angles = [], []
        for index in random.integers(len(self._pool), size=BATCH):
            portrait = self._pool[index]
            if random.random() < 0.5:
                portrait = mirrored(portrait)
            crops.append(relit(random, crop(random, portrait)))
            angles.append(portrait.faces[0].yaw_pitch)
        return gaze_loss(self._logits(crops), torch.from_numpy(np.stack(angles)).to(self._device))

    def report(self) -> str:
        """Return how many degrees off gazes are on unseen scenes, in boxes about as good as found ones."""
        random = np.random.default_rng(0)
        faces = [portrait for scene in unseen_scenes() for portrait in portraits(scene)]
        logits = self._logits([crop(random, portrait) for portrait in faces])
        guess = expected_angles(logits.float()).cpu().numpy()
        errors = angles_between(guess, np.stack([portrait.faces[0].yaw_pitch for portrait in faces]))
        return f"{errors.mean():.2f} degrees off (the worst twentieth over {np.quantile(errors, 0.95):.1f})"

    def save(self, folder: Path) -> None:
        """Write the weights as `export.gaze_network` reads them."""
        training.save_halves(self.network.state_dict(), folder / "model.safetensors")

    def _logits(self, crops: list[NDArray[np.uint8]]) -> Tensor:
        """Return the logits [B,2,90] of yaw and pitch."""
        return self._graph.logits(torch.from_numpy(np.stack(crops)).to(self._device))


def portraits(scene: Scene) -> list[Scene]:
    """Return a scene around each face, with room for the errors of its box."""
    cuts = []
    height, width = scene.image.shape[:2]
    for face in scene.faces:
        margin = MARGIN * (face.box[2:] - face.box[:2]).max()
        x_min, y_min = np.floor(face.box[:2] - margin).astype(int).clip(0).tolist()
        x_max, y_max = np.ceil(face.box[2:] + margin).astype(int).clip(0, (width, height)).tolist()
        origin = np.array([x_min, y_min], np.float32)
        moved = replace(face, box=face.box - np.tile(origin, 2), landmarks=face.landmarks - origin)
        cuts.append(Scene(scene.image[y_min:y_max, x_min:x_max].copy(), faces=[moved]))
    return cuts


def crop(random: np.random.Generator, portrait: Scene) -> NDArray[np.uint8]:
    """Return the face as the gateway cuts it out, by a box that is a little wrong."""
    box = portrait.faces[0].box
    error = random.normal(0, BOX_ERROR, 4) * (box[2:] - box[:2]).max()
    return SPEC.crop(portrait.image, (box + error).astype(np.float32))


def gaze_loss(logits: Tensor, angles: Tensor) -> dict[str, Tensor]:
    """Return the errors of logits [B,2,90] of yaw and pitch whose angles [B,2] are known, in radians.

    The two bins around the angle should share the probability by how near they are. Then their expected angle
    is the right one.
    """
    logits = logits.float()
    place = (angles.rad2deg() - FIRST_BIN_DEGREES) / BIN_DEGREES
    low = place.floor()
    share = (place - low)[..., None]
    neighbours = functional.one_hot(low.long(), BINS), functional.one_hot(low.long() + 1, BINS)
    wanted = neighbours[0] * (1 - share) + neighbours[1] * share
    bins = functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(0, 1))
    degrees = (expected_angles(logits) - angles).rad2deg().abs().mean()
    return {"bins": bins, "degrees": 0.3 * degrees}


def run(device: str, steps: int | None, states: Path, weights: Path) -> None:
    """Train and write the weights."""
    name = "gaze"
    training.train_family(
        Learner, RECIPE, name, device=device, steps=steps, states=states, weights=weights / name
    )


if __name__ == "__main__":
    main(run)

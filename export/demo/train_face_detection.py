"""Teaches the demo's face detector on drawn scenes."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import generalized_box_iou_loss  # type: ignore[import-untyped]

from export.demo import training
from export.demo.agreement import MIN_IOU
from export.demo.command import main
from export.demo.scenes import FIRST_UNSEEN_SEED, DrawnFace, Plan, Scene, draw
from export.demo.training import Recipe
from export.face_detection_network import Network
from export.families.face_detection import DEMO_BLOCKS, DEMO_CHANNELS, DEMO_SIZES, STRIDES
from gateway.models import boxes
from gateway.models.face_detection import OUTPUTS, DetectedFace, YuNetSpec
from gateway.models.resizing import place, resize

RECIPE = Recipe(steps=2400, learning_rate=2e-3, warmup=100, average=0.995, bfloat16=True)

# Scenes are drawn once and seen many times, each time changed, because drawing takes longer than learning.
POOL = 1500
# (width, height, plan) of the scenes, in turn. Scenes of shapes and words alone show what is no face.
SCENES = (
    (480, 360, Plan(faces=(0, 2))),
    (320, 240, Plan(faces=(0, 2))),
    (240, 320, Plan(faces=(1, 2), face_size=(0.2, 0.7))),
    (320, 320, Plan(faces=(1, 3), face_size=(0.15, 0.6))),
    (320, 240, Plan(shapes=(2, 9), words=(0, 5), faces=(0, 0))),
)
# Batches: (the canvas's side in pixels, pictures in a batch, how often).
BATCHES = ((320, 16, 0.75), (480, 8, 0.25))
# The least that a picture is scaled by, of what fills the canvas.
MIN_FACTOR = 0.4

# The longer sides, in pixels, of the faces that each stride finds. Where two ranges overlap, both strides do.
FACES_OF_STRIDE = {8: (0.0, 56.0), 16: (40.0, 128.0), 32: (96.0, np.inf)}
# A cell should find a face if it is this near to the face's centre, in strides.
NEAR = 1.25
# The index of each landmark's counterpart in a mirror.
MIRRORED = [1, 0, 2, 4, 3]
# Errors that are smaller than this share of a face's size count by their square.
FINE = 0.02

UNSEEN_SCENES = 200
UNSEEN_PLAN = Plan(faces=(0, 2))


class Learner:
    """The face detector, and the scenes that it learns from."""

    network: nn.Module

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # This layout is twice as fast on a CPU.
        self._net = Network(DEMO_CHANNELS, DEMO_BLOCKS).to(memory_format=torch.channels_last)
        initialise(self._net)
        self.network = self._net
        self._pool = [draw(seed, *SCENES[seed % len(SCENES)]) for seed in range(POOL)]

    def loss(self, random: np.random.Generator, progress: float) -> dict[str, Tensor]:
        """Return the errors of a batch: of the scores, the boxes and the landmarks."""
        side, count, _ = BATCHES[random.choice(len(BATCHES), p=[share for *_, share in BATCHES])]
        scenes = [
            on_canvas(random, self._pool[index], side)
            for index in random.integers(len(self._pool), size=count)
        ]
        pixels = np.stack([place(scene.image, (side, side)) for scene in scenes])
        return detection_loss(self._net, pixels, [scene.faces for scene in scenes])

    def report(self) -> str:
        """Return recall and precision on unseen scenes, and how far the landmarks are off."""
        return str(measure(self._net, unseen_scenes()))

    def save(self, folder: Path) -> None:
        """Write the weights as `export.face_detection_network` reads them."""
        training.save_halves(self._net.state_dict(), folder / "model.safetensors")


@cache
def unseen_scenes() -> list[Scene]:
    """Return the scenes that the figures are measured on."""
    return [draw(FIRST_UNSEEN_SEED + index, 480, 360, UNSEEN_PLAN) for index in range(UNSEEN_SCENES)]


def initialise(network: Network) -> None:
    """Draw weights that keep signals at one size through all layers, and find few faces of a usual size."""
    for name, parameter in network.named_parameters():
        if parameter.dim() == 1:
            nn.init.zeros_(parameter)
        elif ".second." in name:
            nn.init.normal_(parameter, std=0.2 * (2 / parameter[0].numel()) ** 0.5)
        elif name.startswith("heads"):
            nn.init.normal_(parameter, std=0.01)
        else:
            nn.init.kaiming_normal_(parameter, nonlinearity="relu")
    with torch.no_grad():
        for head in network.heads:
            bias = head.bias
            assert isinstance(bias, Tensor)
            bias[:2], bias[2:4], bias[4:6] = -3, 0.5, 1.7


def on_canvas(random: np.random.Generator, scene: Scene, side: int) -> Scene:
    """Return the scene at a size that fits the canvas, sometimes mirrored, in another light."""
    # Pictures are also enlarged, which the gateway never does, for larger faces than the pool has.
    factor = side / max(scene.image.shape[:2])
    if random.random() < 0.5:
        factor *= random.uniform(MIN_FACTOR, 1)
    height, width = (round(length * factor) for length in scene.image.shape[:2])
    resized = Scene(
        relit(random, resize(scene.image, (height, width))),
        faces=[
            replace(face, box=face.box * np.float32(factor), landmarks=face.landmarks * np.float32(factor))
            for face in scene.faces
        ],
    )
    return mirrored(resized) if random.random() < 0.5 else resized


def relit(random: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the picture RGB uint8 [H,W,3] with other brightness, contrast and colour."""
    gains = random.uniform(0.75, 1.25) * random.uniform(0.95, 1.05, 3)
    table = (np.arange(256)[:, None] - 128) * gains + 128 + random.uniform(-20, 20)
    return np.asarray(cv2.LUT(image, table.clip(0, 255).astype(np.uint8)[:, None]), np.uint8)


def mirrored(scene: Scene) -> Scene:
    """Return the picture and its faces in a mirror, where a left eye becomes a right one."""
    width, turned = scene.image.shape[1], np.array([-1, 1], np.float32)
    faces = []
    for face in scene.faces:
        x_min, y_min, x_max, y_max = face.box
        box = np.array([width - x_max, y_min, width - x_min, y_max], np.float32)
        landmarks = face.landmarks[MIRRORED] * turned + np.array([width, 0], np.float32)
        faces.append(DrawnFace(box, landmarks, face.yaw_pitch * turned))
    return Scene(np.ascontiguousarray(scene.image[:, ::-1]), faces=faces)


def cells(side: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (column, row) [N,2] and stride [N,1] of a square canvas's cells, in the gateway's order."""
    places, strides = [], []
    for stride in STRIDES:
        rows, columns = np.divmod(np.arange((side // stride) ** 2), side // stride)
        places.append(np.stack([columns, rows], 1))
        strides.append(np.full((len(rows), 1), stride))
    return np.concatenate(places).astype(np.float32), np.concatenate(strides).astype(np.float32)


def assign(faces: list[DrawnFace], side: int) -> NDArray[np.int64]:
    """Return the index of the face that each cell [N] of the canvas should find, or -1."""
    places, strides = cells(side)
    chosen = np.full(len(places), -1)
    for index, face in enumerate(faces):
        size = float((face.box[2:] - face.box[:2]).max())
        suits = [low <= size < high for low, high in FACES_OF_STRIDE.values()]
        of_stride = np.isin(strides[:, 0], np.array(STRIDES)[suits])
        away = np.abs((places + 0.5) * strides - (face.box[:2] + face.box[2:]) / 2)
        chosen[of_stride & (away <= NEAR * strides).all(1)] = index
    return chosen


def detection_loss(
    network: Network, pixels: NDArray[np.uint8], faces: list[list[DrawnFace]]
) -> dict[str, Tensor]:
    """Return the errors on square canvases [B,S,S,3], RGB, whose faces are known."""
    device = next(network.parameters()).device
    planes = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).flip(1).float()
    raw = torch.cat(network.raw(planes.contiguous(memory_format=torch.channels_last)), 1).float()
    places, strides = (torch.from_numpy(array).to(device) for array in cells(pixels.shape[1]))

    chosen = np.stack([assign(drawn, pixels.shape[1]) for drawn in faces])
    positive = np.nonzero(chosen >= 0)
    wanted = [faces[row][index] for row, index in zip(positive[0], chosen[positive], strict=True)]
    picture, cell = (torch.from_numpy(indices).to(device) for indices in positive)
    truth_boxes = torch.from_numpy(np.array([f.box for f in wanted], np.float32).reshape(-1, 4)).to(device)
    truth_points = torch.from_numpy(np.array([f.landmarks for f in wanted], np.float32).reshape(-1, 5, 2))

    values, place, stride = raw[picture, cell], places[cell], strides[cell]
    middle = (place + values[:, 2:4]) * stride
    extent = values[:, 4:6].clamp(max=8).exp() * stride
    guess = torch.cat([middle - extent / 2, middle + extent / 2], 1)
    points = (values[:, 6:].reshape(-1, 5, 2) + place[:, None]) * stride[:, None]
    size = (truth_boxes[:, 2:] - truth_boxes[:, :2]).amax(1)[:, None]

    is_face = torch.zeros_like(raw[..., 0])
    is_face[picture, cell] = 1
    quality = torch.zeros_like(is_face)
    quality[picture, cell] = _overlap(guess.detach(), truth_boxes)
    count = max(1, len(wanted))
    scores = {
        name: functional.binary_cross_entropy_with_logits(raw[..., index], target, reduction="sum") / count
        for index, (name, target) in enumerate((("cls", is_face), ("obj", quality)))
    }
    corners = functional.smooth_l1_loss(guess / size, truth_boxes / size, beta=FINE, reduction="sum")
    landmarks = functional.smooth_l1_loss(
        points / size[:, None], truth_points.to(device) / size[:, None], beta=FINE, reduction="sum"
    )
    return {
        **scores,
        "giou": 2 * generalized_box_iou_loss(guess, truth_boxes, reduction="sum") / count,
        "corners": corners / count,
        # The landmarks are the hardest to learn.
        "landmarks": 5 * landmarks / count,
    }


def _overlap(guess: Tensor, truth: Tensor) -> Tensor:
    """Return the intersection over union of boxes [n,4] xyxy, pair by pair."""
    sides = torch.minimum(guess[:, 2:], truth[:, 2:]) - torch.maximum(guess[:, :2], truth[:, :2])
    common = sides.clamp(min=0).prod(1)
    areas = [(xyxy[:, 2:] - xyxy[:, :2]).prod(1) for xyxy in (guess, truth)]
    return common / (areas[0] + areas[1] - common)


class Figures:
    """How well faces are found: counts, overlaps, and landmark errors as shares of the faces' sizes."""

    def __init__(self) -> None:
        self.faces = self.found = self.right = 0
        self.overlaps: list[float] = []
        self.landmark_errors: list[float] = []

    def __str__(self) -> str:
        return (
            f"recall {self.right / max(1, self.faces):.3f} of {self.faces} faces, "
            f"precision {self.right / max(1, self.found):.3f}, IoU {np.mean(self.overlaps or 0):.3f}, "
            f"landmarks {np.mean(self.landmark_errors or 0):.1%} of the size off"
        )


@torch.no_grad()
def found_faces(
    network: Network, image: NDArray[np.uint8], *, small_faces: bool = False
) -> list[DetectedFace]:
    """Find faces on RGB uint8 [H,W,3] as the gateway does by default."""
    spec = YuNetSpec.from_parameters(DEMO_SIZES, Path())
    canvas, valid_size = spec.preprocess(image, small_faces=small_faces)
    device = next(network.parameters()).device
    planes = torch.from_numpy(canvas).to(device).permute(2, 0, 1).flip(0)[None].float()
    heads = zip(OUTPUTS, network(planes), strict=True)
    return spec.postprocess(
        {name: value[0].cpu().numpy() for name, value in heads},
        valid_size,
        image.shape[:2],
        min_score=0.6,
        nms_iou_threshold=0.3,
        max_faces=100,
    )


def measure(network: Network, scenes: list[Scene], *, small_faces: bool = False) -> Figures:
    """Compare the faces that are found with those that are there. IoU 0.5 with one of them is right."""
    figures = Figures()
    for scene in scenes:
        faces = found_faces(network, scene.image, small_faces=small_faces)
        figures.faces += len(scene.faces)
        figures.found += len(faces)
        missing = list(scene.faces)
        for face in faces:
            overlaps = [float(boxes.iou(face.box[None], drawn.box[None])[0, 0]) for drawn in missing]
            if not overlaps or max(overlaps) < MIN_IOU:
                continue
            drawn = missing.pop(int(np.argmax(overlaps)))
            size = (drawn.box[2:] - drawn.box[:2]).max()
            errors = np.linalg.norm(face.landmarks - drawn.landmarks, axis=1) / size
            figures.right += 1
            figures.overlaps.append(max(overlaps))
            figures.landmark_errors.append(float(errors.mean()))
    return figures


def run(device: str, steps: int | None, states: Path, weights: Path) -> None:
    """Train and write the weights."""
    name = "face_detection"
    training.train_family(
        Learner, RECIPE, name, device=device, steps=steps, states=states, weights=weights / name
    )


if __name__ == "__main__":
    main(run)

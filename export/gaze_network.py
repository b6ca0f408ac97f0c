"""L2CS-Net in PyTorch, with the weights of a checkpoint, with our own, or with seeded ones.

The heads are named by what they were trained on, not by what the authors' pipeline calls them. The authors'
training compares the first output, that of `fc_yaw_gaze`, with the first number of GazeHub's `gaze2d`. That
number is the yaw, but the training calls both of them pitch. Their pipeline unpacks the outputs in the same
way, and their drawing undoes the mistake.
"""

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.resnet import Bottleneck, ResNet  # type: ignore[import-untyped]

from export import weights
from export.errors import ExportError, first_line
from export.families.gaze import (
    BIN_DEGREES,
    BINS,
    DEMO_LAYERS,
    DEMO_WIDTH,
    FACE_SIZE,
    FAMILY,
    FIRST_BIN_DEGREES,
    TINY_FACE_SIZE,
)
from export.pictures import MEAN, STD, tinted_noise
from export.pixels import Normalise
from export.weights import Options


class L2cs(nn.Module):
    """The published architecture: torchvision's ResNet with two heads of 90 bins as its last layer.

    `width` is 64 channels in the published network, and fewer in toys.
    """

    def __init__(self, layers: list[int], width: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        trunk: Any = ResNet(Bottleneck, layers)
        trunk.inplanes = width
        for index, blocks in enumerate(layers):
            layer = trunk._make_layer(Bottleneck, width << index, blocks, stride=2 if index else 1)
            setattr(self, f"layer{index + 1}", layer)
        self.fc_yaw_gaze = nn.Linear(trunk.inplanes, BINS)
        self.fc_pitch_gaze = nn.Linear(trunk.inplanes, BINS)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits [B,90] of yaw and of pitch for normalised RGB [B,3,S,S]."""
        features = self.features(pixels)
        return self.fc_yaw_gaze(features), self.fc_pitch_gaze(features)

    def features(self, pixels: Tensor) -> Tensor:
        """Return the features [B,C] that both heads see."""
        values = functional.max_pool2d(self.bn1(self.conv1(pixels)).relu(), 3, stride=2, padding=1)
        for index in range(1, 5):
            values = getattr(self, f"layer{index}")(values)
        return values.mean((2, 3))


def expected_angles(logits: Tensor) -> Tensor:
    """Return radians [...] for logits [...,90] of the bins -180, -176, … 176 degrees."""
    angles = torch.arange(BINS, device=logits.device) * BIN_DEGREES + FIRST_BIN_DEGREES
    return logits.softmax(-1) @ angles.deg2rad()


class Gaze(nn.Module):
    """The network with the input that the gateway sends and the output that it reads."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: L2cs) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(MEAN) * 255)
        self.register_buffer("std", torch.tensor(STD) * 255)

    def forward(self, face: Tensor) -> tuple[Tensor]:
        return (expected_angles(self.logits(face)),)

    def logits(self, face: Tensor) -> Tensor:
        """Return the logits [B,2,90] of yaw and pitch for RGB bytes [B,S,S,3]."""
        yaw, pitch = self.network(((face.to(torch.float32) - self.mean) / self.std).permute(0, 3, 1, 2))
        return torch.stack([yaw, pitch], dim=1)


def build(options: Options) -> L2cs:
    """Return the network with the weights of a checkpoint, of the demo, or of a seed."""
    if options.weights == "demo":
        return _demo()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(options.seed)
        network = L2cs([1, 1, 1, 1], width=8) if options.size == "tiny" else L2cs([3, 4, 6, 3])
        if options.weights == "random":
            _randomise(network, options)
        else:
            _load(network, Path(options.weights))
    return network.eval()


def _demo() -> L2cs:
    network = L2cs(DEMO_LAYERS, DEMO_WIDTH)
    network.load_state_dict(load_file(weights.demo_weights(FAMILY.name) / "model.safetensors"))
    return network.eval()


def _load(network: L2cs, path: Path) -> None:
    if not path.is_file():
        raise ExportError(f"There is no file {path}; --weights takes random, a checkpoint or an ONNX file.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ExportError(f"{path} is not a checkpoint of weights alone: {first_line(error)}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ExportError(f"{path} is not a state dict.")
    # The authors' checkpoints also hold this layer, which nothing uses.
    used = {name: value for name, value in state.items() if not name.startswith("fc_finetune.")}
    try:
        network.load_state_dict(used)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ExportError(f"{path} is not L2CS-Net's ResNet-50 with {BINS} bins: {reason}") from error


def _randomise(network: L2cs, options: Options) -> None:
    """Draw weights whose signals neither vanish nor explode, and whose angles depend on the face."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.normal_(std=(2 / module.weight[0].numel()) ** 0.5)
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.normal_(1, 0.1)
            module.bias.normal_(0, 0.1)
            module.reset_running_stats()
            # The statistics are those of the pass below, not a mix with zeros and ones.
            module.momentum = None
    size = TINY_FACE_SIZE if options.size == "tiny" else FACE_SIZE
    faces = Normalise()(torch.from_numpy(tinted_noise(options.seed, 8, size, size)))
    network.train()(faces)
    features = network.eval().features(faces)
    spread, mean = torch.std_mean(features, dim=0)
    for head in (network.fc_yaw_gaze, network.fc_pitch_gaze):
        head.weight.normal_(std=float(1.5 * head.in_features**-0.5 / spread.square().mean().sqrt()))
        head.bias.copy_(-head.weight @ mean)

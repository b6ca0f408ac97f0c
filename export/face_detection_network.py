"""A network with YuNet's input, strides and heads in PyTorch, with seeded or our own weights."""

from itertools import pairwise

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from export import weights
from export.errors import ExportError
from export.families.face_detection import DEMO_BLOCKS, DEMO_CHANNELS, FAMILY, HEADS, STRIDES
from export.weights import Options


class Network(nn.Module):
    """A convolutional network with YuNet's input, strides and heads, and far fewer layers.

    It has `blocks` residual blocks at each stride on the way down, to see more of the picture, and as many on
    the way up.
    """

    def __init__(self, channels: int, blocks: int = 0) -> None:
        super().__init__()
        sides = [3, *[channels] * 5]
        self.down = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2, padding=1) for before, after in pairwise(sides)
        )
        self.deeper, self.smoother = (
            nn.ModuleList(nn.Sequential(*(Block(channels) for _ in range(blocks))) for _ in STRIDES)
            for _ in range(2)
        )
        self.heads = nn.ModuleList(nn.Conv2d(channels, sum(HEADS.values()), 1) for _ in STRIDES)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return the heads of all strides, each [B,cells,values], for BGR planes 0..255 [B,3,H,W]."""
        outputs = {}
        for stride, values in zip(STRIDES, self.raw(pixels), strict=True):
            for name, value in zip(HEADS, torch.split(values, list(HEADS.values()), -1), strict=True):
                outputs[f"{name}_{stride}"] = value.sigmoid() if name in {"cls", "obj"} else value
        return tuple(outputs[f"{name}_{stride}"] for name in HEADS for stride in STRIDES)

    def raw(self, pixels: Tensor) -> list[Tensor]:
        """Return all values of every stride, [B,cells,16] in the order of HEADS; logits for cls and obj."""
        features = pixels / 128 - 1
        pyramid = []
        first = len(self.down) - len(STRIDES)
        for index, down in enumerate(self.down):
            features = functional.relu(down(features))
            if index >= first:
                features = self.deeper[index - first](features)
                pyramid.append(features)
        for level in (1, 0):
            pyramid[level] = pyramid[level] + functional.interpolate(pyramid[level + 1], scale_factor=2.0)
        return [
            head(smoother(features)).permute(0, 2, 3, 1).flatten(1, 2)
            for features, smoother, head in zip(pyramid, self.smoother, self.heads, strict=True)
        ]


class Block(nn.Module):
    """A residual block of two convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """Return features [B,C,H,W] of the same shape."""
        return functional.relu(features + self.second(functional.relu(self.first(features))))


class Detector(nn.Module):
    """The network with the input that the gateway sends."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = self.network(image.permute(0, 3, 1, 2).flip(1).to(torch.float32))
        return outputs


def build(options: Options) -> Network:
    """Return the network with our own weights, or with seeded ones that find some faces in any picture."""
    if options.weights == "demo":
        return _demo()
    if options.weights != "random":
        raise ExportError("Only random and demo weights make a network; all others come as ONNX files.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = Network(8 if options.size == "tiny" else 32)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if parameter.dim() > 1:
                    gain = 2 if name.startswith("down") else 1
                    parameter.normal_(std=(gain / parameter[0].numel()) ** 0.5)
                elif name.startswith("heads"):
                    # Most scores are about one half, and boxes about two cells wide.
                    parameter.zero_()[4:6] = 0.7
                else:
                    parameter.normal_(std=0.1)
    return network.eval()


def _demo() -> Network:
    network = Network(DEMO_CHANNELS, DEMO_BLOCKS)
    network.load_state_dict(load_file(weights.demo_weights(FAMILY.name) / "model.safetensors"))
    return network.eval()

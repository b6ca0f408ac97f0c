"""YuNet, the face detector: from its ONNX file, or a network of its shape with seeded or our own weights."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from export import ready_onnx, weights
from export.errors import ExportError
from export.families.face_detection import FAMILY
from export.graph import Arrays, Export, Graph
from export.pixels import noise
from export.weights import Options

STRIDES = (8, 16, 32)
HEADS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
"""The outputs of every stride, and the number of their values in each cell."""

# Sides of the gateway's square canvases, in pixels. YuNet finds faces from about 10 pixels on. On the first
# canvas that is a 64th of the image's longer side. The second costs four times as much, and finds faces of
# half that size.
SIZES = {"canvas": "640", "small_faces_canvas": "1280"}
TINY_SIZES = {"canvas": "160", "small_faces_canvas": "320"}
# The sizes of the network that `export.demo.train_face_detection` trains.
DEMO_CHANNELS, DEMO_BLOCKS = 32, 1
DEMO_SIZES = {"canvas": "320", "small_faces_canvas": "640"}

NO_HUB = f"No hub has the face detector's weights: download {FAMILY.weights} and give it with --weights."

# Turns bytes into what YuNet takes: blue, green and red planes of 0 to 255, as in OpenCV.
BEFORE = f"""
before (uint8[batch, height, width, 3] image) => (float[batch, 3, height, width] {ready_onnx.PREFIX}input)
<int64[3] reversed = {{2, 1, 0}}>
{{
  bgr = Gather <axis = 3> (image, reversed)
  planes = Transpose <perm = [0, 3, 1, 2]> (bgr)
  {ready_onnx.PREFIX}input = Cast <to = 1> (planes)
}}
"""


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


def prepare(options: Options) -> Export:
    """Describe the graph, with the reference that it must agree with."""
    own = "demo" if options.weights == "demo" else FAMILY.variants[0]
    if options.variant not in {None, own}:
        raise ExportError(f"There is no variant {options.variant!r}; there is {own}.")
    if options.revision is not None:
        raise ExportError("--revision is for a hub, and no hub has the face detector's weights.")
    if options.weights == "hub":
        raise ExportError(NO_HUB)
    variant, sizes = ("tiny", TINY_SIZES) if options.size == "tiny" else (FAMILY.variants[0], SIZES)
    if options.weights == "demo":
        variant, sizes = "demo", DEMO_SIZES
    parameters = {"family": FAMILY.name, "variant": variant, **sizes}
    if options.weights in {"random", "demo"}:
        return Export([_network(build(options), parameters)])
    return Export([_ready(Path(options.weights), parameters)])


def _network(network: Network, parameters: dict[str, str]) -> Graph:
    @torch.no_grad()
    def reference(inputs: Arrays, _outputs: Arrays) -> Arrays:
        values = network(torch.from_numpy(_planes(inputs["image"])))
        return {name: value.numpy() for name, value in zip(_output_names(), values, strict=True)}

    return _graph(
        Detector(network),
        parameters,
        reference=reference,
        cases=[_case(1, 1, 96, 160), _case(2, 3, 160, 64), _case(3, 2, 320, 320)],
        # torch.export cannot be told that a side is a multiple of 32.
        dynamo=False,
        opset=17,
    )


def _ready(path: Path, parameters: dict[str, str]) -> Graph:
    model = ready_onnx.read(path)
    fixed = _check(model, path)
    ready_onnx.free_batch(model)
    original = ready_onnx.session(path)
    names = [output.name for output in original.get_outputs()]

    def reference(inputs: Arrays, _outputs: Arrays) -> Arrays:
        # One by one: older files take no batches.
        answers = [original.run(names, {"input": planes[None]}) for planes in _planes(inputs["image"])]
        return {
            name: np.concatenate(values)
            for name, values in zip(names, zip(*answers, strict=True), strict=True)
        }

    # A file of a fixed size cannot be asked at another size, although our graph takes any.
    sizes = [fixed, fixed] if fixed else [(640, 640), (320, 96)]
    return _graph(
        ready_onnx.wrap(model, BEFORE),
        parameters,
        reference=reference,
        cases=[
            _case(seed, batch, *size) for seed, (batch, size) in enumerate(zip((1, 3), sizes, strict=True))
        ],
        origin=path.name,
    )


def _graph(module: Any, parameters: dict[str, str], **rest: Any) -> Graph:
    example = _case(0, 2, 64, 96)
    return Graph(
        model="face_detection",
        module=module,
        inputs={name: torch.from_numpy(value) for name, value in example.items()},
        outputs={
            name: ("batch", f"cells_{name.partition('_')[2]}", HEADS[name.partition("_")[0]])
            for name in _output_names()
        },
        dynamic={"image": {0: "batch", 1: "height", 2: "width"}},
        parameters=parameters,
        # Trained weights score next to nothing where no face is: rounding is a large part of such scores.
        tolerance=1e-3,
        **rest,
    )


def _check(model: Any, path: Path) -> tuple[int, int] | None:
    """Raise ExportError if the file is not YuNet's. Return (height, width) if it takes a single size."""
    inputs = ready_onnx.shapes(model.graph.input)
    outputs = ready_onnx.shapes(model.graph.output)
    wanted = {f"{name}_{stride}": values for name, values in HEADS.items() for stride in STRIDES}
    if (
        inputs.keys() != {"input"}
        or len(inputs["input"]) != 4
        or inputs["input"][1] != 3
        or {name: shape[-1] for name, shape in outputs.items() if len(shape) == 3} != wanted
    ):
        raise ExportError(
            f"{path} is not YuNet's file: YuNet has the input 'input' [1, 3, H, W] and the outputs "
            f"{', '.join(sorted(wanted))}, but this has {inputs} and {', '.join(sorted(outputs))}."
        )
    height, width = inputs["input"][2:]
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _output_names() -> list[str]:
    return [f"{name}_{stride}" for name in HEADS for stride in STRIDES]


def _planes(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return RGB bytes, NHWC, as the input of the file."""
    return np.ascontiguousarray(image[..., ::-1].transpose(0, 3, 1, 2), dtype=np.float32)


def _case(seed: int, batch: int, height: int, width: int) -> Arrays:
    return {"image": noise(seed, batch, height, width)}

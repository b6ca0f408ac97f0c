"""L2CS-Net, where a face looks: from its checkpoint, a ready ONNX file of its kind, or our demo weights.

The heads count as what they were trained on, not as what the authors' pipeline calls them. The authors'
training compares the first output, that of `fc_yaw_gaze`, with the first number of GazeHub's `gaze2d`. That
number is the yaw, but the training calls both pitch. Their pipeline unpacks the outputs in the same way, and
their drawing undoes the mistake.
"""

import math
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.resnet import Bottleneck, ResNet  # type: ignore[import-untyped]

from export import ready_onnx, weights
from export.errors import ExportError, first_line
from export.families.gaze import FAMILY
from export.graph import Arrays, Export, Graph
from export.pixels import MEAN, STD, noise
from export.weights import Options

BINS, BIN_DEGREES, FIRST_BIN_DEGREES = 90, 4, -180
FACE_SIZE, TINY_FACE_SIZE = 448, 64
# The side, in pixels, that the authors' pipeline squeezes crops into before it enlarges them. Their training
# images were made so, too.
CROP_SIZE = 224
# The sizes of the network that `export.demo.train_gaze` trains.
DEMO_LAYERS, DEMO_WIDTH = [1, 1, 1, 1], 12
DEMO_FACE_SIZE = 96

NO_HUB = f"No hub has L2CS-Net's weights: download {FAMILY.weights}, and give it with --weights."

# Turns bytes into what the network takes: RGB planes, normalised by ImageNet's mean and spread.
BEFORE = f"""
before (uint8[batch, side, side, 3] face) => (float[batch, 3, side, side] {ready_onnx.PREFIX}input)
<
  float[3] mean = {{{", ".join(f"{255 * value!r}" for value in MEAN)}}},
  float[3] spread = {{{", ".join(f"{255 * value!r}" for value in STD)}}}
>
{{
  bytes = Cast <to = 1> (face)
  centred = Sub (bytes, mean)
  normalised = Div (centred, spread)
  {ready_onnx.PREFIX}input = Transpose <perm = [0, 3, 1, 2]> (normalised)
}}
"""
_BIN_ANGLES = ", ".join(repr(math.radians(BIN_DEGREES * i + FIRST_BIN_DEGREES)) for i in range(BINS))
# Turns the logits of yaw and pitch into radians: the expected angle of the bins.
AFTER = f"""
after (float[batch, {BINS}] yaw, float[batch, {BINS}] pitch) => (float[batch, 2] yaw_pitch)
<
  int64[1] middle = {{1}},
  float[{BINS}] angles = {{{_BIN_ANGLES}}}
>
{{
  yaw_row = Unsqueeze (yaw, middle)
  pitch_row = Unsqueeze (pitch, middle)
  rows = Concat <axis = 1> (yaw_row, pitch_row)
  probabilities = Softmax <axis = -1> (rows)
  yaw_pitch = MatMul (probabilities, angles)
}}
"""


class L2cs(nn.Module):
    """The published architecture: torchvision's ResNet with two heads of 90 bins as its last layer.

    `width` is 64 in the published one, and less in toys.
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
    """Return radians [...] for logits [...,90] of the bins -180, -176, ... 176 degrees."""
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


def prepare(options: Options) -> Export:
    """Describe the graph, with the reference that it must agree with."""
    if options.revision is not None:
        raise ExportError("--revision is for a hub, and no hub has L2CS-Net's weights.")
    if options.weights == "hub":
        raise ExportError(NO_HUB)
    if Path(options.weights).suffix.lower() == ".onnx":
        return Export([_ready(Path(options.weights), options.variant)])
    own = "demo" if options.weights == "demo" else FAMILY.variants[0]
    if options.variant not in {None, own}:
        raise ExportError(f"There is no variant {options.variant!r} of a checkpoint; there is {own}.")
    variant, size, crop_size = FAMILY.variants[0], FACE_SIZE, CROP_SIZE
    if options.size == "tiny":
        variant, size, crop_size = "tiny", TINY_FACE_SIZE, TINY_FACE_SIZE // 2
    if options.weights == "demo":
        variant, size, crop_size = "demo", DEMO_FACE_SIZE, DEMO_FACE_SIZE
    return Export([_network(build(options), variant, size, crop_size)])


def _network(network: L2cs, variant: str, size: int, crop_size: int) -> Graph:
    @torch.no_grad()
    def reference(inputs: Arrays, _outputs: Arrays) -> Arrays:
        logits = torch.stack(network(torch.from_numpy(_pixels(inputs["face"]))), dim=1)
        return {"yaw_pitch": _decode(logits.numpy())}

    return _graph(Gaze(network), variant, size, crop_size, reference=reference)


def _ready(path: Path, variant: str | None) -> Graph:
    """Describe a file of L2CS-Net's kind: a normalised face in, logits `yaw` and `pitch` out."""
    model = ready_onnx.read(path)
    inputs = ready_onnx.shapes(model.graph.input)
    outputs = ready_onnx.shapes(model.graph.output)
    if (
        inputs.keys() != {"input"}
        or len(inputs["input"]) != 4
        or inputs["input"][1] != 3
        or not {"yaw", "pitch"} <= outputs.keys()
        or {outputs[name][-1] for name in ("yaw", "pitch")} != {BINS}
    ):
        raise ExportError(
            f"{path} is not of L2CS-Net's kind: it needs the input 'input' [B, 3, {FACE_SIZE}, {FACE_SIZE}] "
            f"and the outputs 'yaw' and 'pitch' [B, {BINS}], but this has {inputs} and {outputs}."
        )
    height, width = inputs["input"][2:]
    if height != width:
        raise ExportError(f"{path} takes faces of {height}x{width} pixels; they must be square.")
    size = height if isinstance(height, int) else FACE_SIZE
    ready_onnx.free_batch(model)
    original = ready_onnx.session(path)

    def reference(inputs: Arrays, _outputs: Arrays) -> Arrays:
        # One by one: a file may take no batches.
        answers = [
            np.stack(original.run(["yaw", "pitch"], {"input": pixels[None]}), axis=1)
            for pixels in _pixels(inputs["face"])
        ]
        return {"yaw_pitch": _decode(np.concatenate(answers))}

    name = variant or re.sub(r"\W+", "_", path.stem)
    # The pipelines of such files resize the crop only once.
    return _graph(
        ready_onnx.wrap(model, BEFORE, AFTER), name, size, size, reference=reference, origin=path.name
    )


def _graph(module: Any, variant: str, size: int, crop_size: int, **rest: Any) -> Graph:
    return Graph(
        model="gaze",
        module=module,
        inputs={"face": torch.from_numpy(_noise_faces(0, size, 2))},
        outputs={"yaw_pitch": ("batch", 2)},
        dynamic={"face": {0: "batch"}},
        cases=[{"face": _noise_faces(1, size, 1)}, {"face": _noise_faces(2, size, 3)}],
        parameters={
            "family": FAMILY.name,
            "variant": variant,
            "face_size": str(size),
            "crop_size": str(crop_size),
        },
        # The older exporter takes a tenth of the time of torch.export.
        dynamo=False,
        opset=17,
        **rest,
    )


def _noise_faces(seed: int, size: int, batch: int) -> np.ndarray[Any, Any]:
    """Return pictures [batch,S,S,3] of different colours: a deep network averages noise away."""
    pictures = noise(seed, batch, size, size)
    colours = np.random.default_rng(seed).integers(0, 256, (batch, 1, 1, 3))
    return (pictures * 0.4 + colours * 0.6).astype(np.uint8)


def _pixels(face: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return RGB bytes, NHWC, as torchvision's ToTensor and Normalize make them: float32 [B,3,S,S]."""
    normalised: np.ndarray[Any, Any] = (face / 255.0 - MEAN) / STD
    return normalised.transpose(0, 3, 1, 2).astype(np.float32)


def _decode(logits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return radians [B,2] for logits [B,2,90] as the authors' pipeline does: in degrees, bin by bin."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    expected = (powers / powers.sum(-1, keepdims=True) * np.arange(BINS)).sum(-1)
    angles: np.ndarray[Any, Any] = (expected * BIN_DEGREES + FIRST_BIN_DEGREES) * np.pi / 180
    return angles.astype(np.float32)


def _load(network: L2cs, path: Path) -> None:
    if not path.is_file():
        raise ExportError(f"There is no file {path}; --weights takes random, a checkpoint or an ONNX file.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ExportError(f"{path} is not a checkpoint of weights alone: {first_line(error)}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ExportError(f"{path} is not a state dict.")
    # A layer of earlier experiments that nothing uses.
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
    faces = torch.from_numpy(_pixels(_noise_faces(options.seed, size, 8)))
    network.train()(faces)
    features = network.eval().features(faces)
    spread, mean = torch.std_mean(features, dim=0)
    for head in (network.fc_yaw_gaze, network.fc_pitch_gaze):
        head.weight.normal_(std=float(1.5 * head.in_features**-0.5 / spread.square().mean().sqrt()))
        head.bias.copy_(-head.weight @ mean)

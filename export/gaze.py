"""L2CS-Net, where a face looks: from its checkpoint, a ready ONNX file of its kind, or our demo weights."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from export import ready_onnx
from export.errors import ExportError
from export.families.gaze import (
    BIN_DEGREES,
    BINS,
    CROP_SIZE,
    DEMO_FACE_SIZE,
    FACE_SIZE,
    FAMILY,
    FIRST_BIN_DEGREES,
    TINY_FACE_SIZE,
)
from export.graph import Arrays, Export, Graph
from export.measures import MAX_DEGREES, degrees
from export.photos import cut, scene
from export.pictures import MEAN, STD, tinted_noise
from export.weights import Options

NO_HUB = f"No hub has L2CS-Net's weights: download {FAMILY.weights}, and give it with --weights."
# Seeded weights spread a gaze over all bins, so that a little more in one far bin turns it. PyTorch's own
# half turns that of ResNet-50 by 0.5 to 2.7 degrees.
MAX_DEGREES_OF_SEEDED = 10

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


def prepare(options: Options) -> Export:
    """Describe the graph, with the reference that it must agree with."""
    if options.revision is not None:
        raise ExportError("--revision is for a hub, and no hub has L2CS-Net's weights.")
    if options.weights == "hub":
        raise ExportError(NO_HUB)
    if options.is_onnx:
        return Export([_ready(Path(options.weights), options.variant)])
    own = "demo" if options.weights == "demo" else FAMILY.variants[0]
    if options.variant not in {None, own}:
        raise ExportError(f"There is no variant {options.variant!r} of a checkpoint; there is {own}.")
    variant, size, crop_size = FAMILY.variants[0], FACE_SIZE, CROP_SIZE
    if options.size == "tiny":
        variant, size, crop_size = "tiny", TINY_FACE_SIZE, TINY_FACE_SIZE // 2
    if options.weights == "demo":
        variant, size, crop_size = "demo", DEMO_FACE_SIZE, DEMO_FACE_SIZE
    return Export([_network(options, variant, size, crop_size)])


def _network(options: Options, variant: str, size: int, crop_size: int) -> Graph:
    """Describe a network in PyTorch, which is imported only here."""
    import torch

    from export import gaze_network

    network = gaze_network.build(options)

    @torch.no_grad()
    def reference(inputs: Arrays, _outputs: Arrays) -> Arrays:
        logits = torch.stack(network(torch.from_numpy(_pixels(inputs["face"]))), dim=1)
        return {"yaw_pitch": _decode(logits.numpy())}

    seeded: dict[str, Any] = {"max_degrees": MAX_DEGREES_OF_SEEDED, "half_tolerance": 0.3}
    given = seeded if options.weights == "random" else {}
    module = gaze_network.Gaze(network)
    return _graph(module, variant, size, crop_size, reference=reference, **given)


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
        # One by one, because a file may accept no batches.
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


def _photos(size: int) -> list[Arrays]:
    drawn = scene()
    return [{"face": np.stack(cut([face.box for face in drawn.faces], size, size))}] if drawn else []


def _graph(
    module: Any, variant: str, size: int, crop_size: int, max_degrees: float = MAX_DEGREES, **rest: Any
) -> Graph:
    return Graph(
        model="gaze",
        module=module,
        inputs=_case(0, 2, size),
        outputs={"yaw_pitch": ("batch", 2)},
        dynamic={"face": {0: "batch"}},
        cases=[_case(1, 1, size), _case(2, 3, size)],
        measures=[degrees("yaw_pitch", limit=max_degrees)],
        photos=lambda: _photos(size),
        warmup=[{"face": np.zeros((1, size, size, 3), np.uint8)}],
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


def _case(seed: int, batch: int, size: int) -> Arrays:
    return {"face": tinted_noise(seed, batch, size, size)}


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

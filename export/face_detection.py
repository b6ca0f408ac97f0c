"""YuNet, the face detector: from its ONNX file, or a network of its shape with seeded or our own weights."""

from pathlib import Path
from typing import Any

import numpy as np

from export import ranges, ready_onnx
from export.errors import ExportError
from export.families.face_detection import DEMO_SIZES, FAMILY, HEADS, SIZES, STRIDES, TINY_SIZES
from export.graph import Arrays, Export, Graph
from export.measures import faces
from export.photos import pictures
from export.pictures import noise
from export.weights import Options

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
        return Export([_network(options, parameters)])
    return Export([_ready(Path(options.weights), parameters)])


def _network(options: Options, parameters: dict[str, str]) -> Graph:
    """Describe a network in PyTorch, which is imported only here."""
    import torch

    from export import face_detection_network

    network = face_detection_network.build(options)

    @torch.no_grad()
    def reference(inputs: Arrays, _outputs: Arrays) -> Arrays:
        values = network(torch.from_numpy(_planes(inputs["image"])))
        return {name: value.numpy() for name, value in zip(_output_names(), values, strict=True)}

    return _graph(
        face_detection_network.Detector(network),
        parameters,
        # Seeded weights have faces everywhere, with boxes that rounding decides more of.
        measures=[faces() if options.weights == "demo" else faces(limit=0.9)],
        reference=reference,
        cases=[_case(1, 1, 96, 160), _case(2, 3, 160, 64), _case(3, 2, 320, 320)],
        # torch.export has no way to say that a side is a multiple of 32.
        dynamo=False,
        opset=17,
    )


def _ready(path: Path, parameters: dict[str, str]) -> Graph:
    """Describe YuNet's own file: float planes in, heads out."""
    model = ready_onnx.read(path)
    fixed = _check(model, path)
    ready_onnx.free_batch(model)
    original = ready_onnx.session(path)
    names = [output.name for output in original.get_outputs()]

    def reference(inputs: Arrays, _outputs: Arrays) -> Arrays:
        # One by one, because older files accept no batches.
        answers = [original.run(names, {"input": planes[None]}) for planes in _planes(inputs["image"])]
        return {
            name: np.concatenate(values)
            for name, values in zip(names, zip(*answers, strict=True), strict=True)
        }

    # The reference is the file itself. If it has a fixed size, it runs at no other, though our graph does.
    sizes = [fixed, fixed] if fixed else [(640, 640), (320, 96)]
    return _graph(
        ready_onnx.wrap(model, BEFORE),
        parameters,
        measures=[faces()],
        reference=reference,
        cases=[
            _case(seed, batch, *size) for seed, (batch, size) in enumerate(zip((1, 3), sizes, strict=True))
        ],
        origin=path.name,
    )


def _graph(module: Any, parameters: dict[str, str], **rest: Any) -> Graph:
    canvas, small_faces_canvas = (int(parameters[name]) for name in ("canvas", "small_faces_canvas"))
    return Graph(
        model="face_detection",
        module=module,
        inputs=_case(0, 2, 64, 96),
        outputs={
            name: ("batch", f"cells_{name.partition('_')[2]}", HEADS[name.partition("_")[0]])
            for name in _output_names()
        },
        dynamic={"image": {0: "batch", 1: "height", 2: "width"}},
        warmup=[{"image": np.zeros((1, canvas, canvas, 3), np.uint8)}],
        parameters=parameters,
        ranges=dict.fromkeys(("height", "width"), ranges.of_sizes([canvas, small_faces_canvas])),
        photos=lambda: [{"image": picture[None]} for picture in pictures(320, 320)],
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

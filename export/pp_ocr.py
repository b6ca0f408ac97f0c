"""PP-OCR: the networks of PaddleOCR that find and read lines, from ready ONNX files.

Needs neither PyTorch nor PaddlePaddle. The files are those of the package `rapidocr`, which ships the small
ones, or the official ones (PaddlePaddle/PP-OCRv6_small_det_onnx and its like), each with its inference.yml.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata, util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml

from export import photos, ranges, ready_onnx
from export.errors import ExportError, first_line
from export.families.doctr import FAMILY, PP_OCR, RAPIDOCR
from export.graph import Arrays, Export, Graph
from export.measures import same_words, text_maps, words_of
from export.pictures import text_images
from export.weights import Options

CROP_HEIGHT = 48
# To which of these widths a line is padded depends on the line alone. Each is about a quarter larger than the
# one before. All are multiples of the network's step, 8 pixels.
CROP_WIDTHS = (320, 400, 512, 640, 800, 1024, 1280, 1600, 2048, 2560)
# A step has 18,710 probabilities: 16 crops of the smallest width take 300 MB while they run.
MAX_CROPS = 16
# Height and width of a small upright page of A4 as the gateway sends it.
PAGE = (1056, 736)
_SQUARE = (736, 736)

# The numbers of the package's pipeline, which are also PaddleOCR's for this generation. Its `max_side_len` of
# 2000 is rounded up to what the network takes.
DETECTION = {
    "min_side": "736",
    "max_side": "2016",
    "bin_threshold": "0.3",
    "box_threshold": "0.5",
    "unclip_ratio": "1.6",
    "min_box_size": "3",
}
# A narrow strip stays narrow. A page of usual proportions has about 1 megapixel.
DETECTION_SIDES = (32, 992, int(DETECTION["max_side"]))
RECOGNITION = {
    "crop_height": str(CROP_HEIGHT),
    "crop_widths": ",".join(map(str, CROP_WIDTHS)),
    # The pipeline pads with zeros after normalising.
    "padding": "128",
    "min_confidence": "0.5",
}
NOTICE = (
    "{variant}: weights by the PaddleOCR authors (Baidu) under the Apache License 2.0, converted to ONNX, "
    "here with other inputs and outputs. Source: {source}"
)


@dataclass(frozen=True)
class Pixels:
    """What a network does to BGR pixels of 0 to 1 first: subtract the mean, divide by the spread."""

    mean: Sequence[float] = (0.5, 0.5, 0.5)
    std: Sequence[float] = (0.5, 0.5, 0.5)

    def normalise(self, image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return RGB bytes [B,H,W,3] as the file takes them: float32 [B,3,H,W]."""
        bgr = image[..., ::-1] / 255.0
        planes = ((bgr - self.mean) / self.std).transpose(0, 3, 1, 2)
        return np.ascontiguousarray(planes, dtype=np.float32)

    def graph(self, image: str, axes: str) -> str:
        """Return the same as a graph before the file's, whose input is `image`."""
        mean = ", ".join(repr(255 * value) for value in self.mean)
        std = ", ".join(repr(255 * value) for value in self.std)
        return f"""
before (uint8[batch, {axes}, 3] {image}) => (float[batch, 3, {axes}] {ready_onnx.PREFIX}x)
<
  int64[3] reversed = {{2, 1, 0}},
  float[3] mean = {{{mean}}},
  float[3] std = {{{std}}}
>
{{
  bgr = Gather <axis = 3> ({image}, reversed)
  values = Cast <to = 1> (bgr)
  centred = Sub (values, mean)
  normalised = Div (centred, std)
  {ready_onnx.PREFIX}x = Transpose <perm = [0, 3, 1, 2]> (normalised)
}}
"""


@dataclass(frozen=True)
class File:
    """A network's ONNX file with what lies beside it."""

    path: Path

    def setting(self, *names: str) -> Any:
        """Return what inference.yml says under these names, or None: the package has no such files."""
        path = self.path.with_name("inference.yml")
        if not path.is_file():
            return None
        try:
            value = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ExportError(f"{path} is not valid: {first_line(error)}") from error
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        return value

    def pixels(self) -> Pixels:
        """Return how the network wants its pixels."""
        for step in self.setting("PreProcess", "transform_ops") or []:
            if isinstance(step, dict) and "NormalizeImage" in step:
                try:
                    mean, std = (
                        tuple(float(value) for value in step["NormalizeImage"][name])
                        for name in ("mean", "std")
                    )
                except (KeyError, TypeError, ValueError):
                    mean = std = ()
                if len(mean) != 3 or len(std) != 3 or 0 in std:
                    raise ExportError(
                        f"{self.path.with_name('inference.yml')}: NormalizeImage needs a mean and a std of "
                        "three numbers."
                    )
                return Pixels(mean, std)
        return Pixels()


def prepare(options: Options) -> Export:
    """Describe both graphs, with the files that each must agree with."""
    if options.revision is not None:
        raise ExportError("--revision is for a hub, and PP-OCR comes from files.")
    if options.vocabulary is not None:
        raise ExportError("PP-OCR's weights bring their characters: leave --vocabulary out.")
    if options.size == "tiny" or options.weights in {"hub", "demo", "random"}:
        raise ExportError(f"PP-OCR comes from ready ONNX files: --weights takes {RAPIDOCR} or a folder.")
    variant = str(options.variant)
    if options.weights == RAPIDOCR:
        folder, source = _package()
        advice = f"pip install '{RAPIDOCR}>=3.10,<3.11' has those of the size small"
    else:
        folder, source = Path(options.weights), Path(options.weights).name
        advice = (
            "both words must be in the path of one file each, as in PP-OCRv6_det_small.onnx or "
            "small/det/inference.onnx"
        )
    if not folder.is_dir():
        raise ExportError(f"{folder} is not a folder; --weights takes {RAPIDOCR} or a folder.")
    try:
        detector, recognizer = (_find(folder, PP_OCR[variant], role) for role in ("det", "rec"))
    except LookupError as error:
        raise ExportError(f"{source} has {error.args[0]}: {advice}.") from error
    notice = NOTICE.format(variant=variant, source=source)
    names = {"family": FAMILY.name, "variant": variant, "unit": "line", "notice": notice}
    return Export([_detection(detector, names), _recognition(recognizer, names)], notice=notice)


def _package() -> tuple[Path, str]:
    """Return the folder of the package's networks, and the package's name and version."""
    spec = util.find_spec(RAPIDOCR)
    assert spec is not None  # the command checks that it is installed
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "models", f"{RAPIDOCR} {metadata.version(RAPIDOCR)}"


def _find(folder: Path, size: str, role: str) -> File:
    """Return the network of a size and role: both are words in its path, as PP-OCRv6_small_det_onnx.

    Raises LookupError, which says what there is instead.
    """
    words = {
        path: re.split(r"[^a-z0-9]+", f"{folder.name}/{path.relative_to(folder)}".lower())
        for path in sorted(folder.rglob("*.onnx"))
    }
    found = [path for path in words if role in words[path]]
    if sizes := [path for path in found if size in words[path]]:
        found = sizes
    elif any(other in words[path] for path in found for other in PP_OCR.values()):
        found = []
    if len(found) != 1:
        what = "no ONNX file" if not found else f"{len(found)} ONNX files"
        raise LookupError(f"{what} of PP-OCR's {size} {role}")
    return File(found[0])


def _detection(file: File, names: Mapping[str, str]) -> Graph:
    model = ready_onnx.read(file.path)
    inputs, outputs = _shapes(model)
    if [len(shape) for shape in outputs.values()] != [4] or set(inputs) != {"x"}:
        raise ExportError(
            f"{file.path} is not PP-OCR's detection network: it needs the input 'x' [B, 3, H, W] and one "
            f"output [B, 1, H, W], but this has {inputs} and {outputs}."
        )
    (output,) = outputs
    pixels = file.pixels()
    original = ready_onnx.session(file.path)

    def reference(inputs: Arrays, _outputs: Arrays) -> Arrays:
        (maps,) = original.run(None, {"x": pixels.normalise(inputs["image"])})
        return {"probability_map": maps[:, 0]}

    after = f"""
after (float[batch, one, height, width] {output}) => (float[batch, height, width] probability_map)
<int64[1] plane = {{1}}>
{{
  probability_map = Squeeze ({output}, plane)
}}
"""
    return Graph(
        model="doctr_detection",
        module=ready_onnx.wrap(model, pixels.graph("image", "height, width"), after),
        inputs={"image": text_images(1, 2, 64, 96)},
        outputs={"probability_map": ("batch", "height", "width")},
        dynamic={"image": {0: "batch", 1: "height", 2: "width"}},
        cases=[{"image": text_images(2, 1, 320, 480)}, {"image": text_images(3, 2, 224, 160)}],
        reference=reference,
        measures=text_maps("probability_map", above=float(DETECTION["bin_threshold"])),
        photos=partial(photos.pages, *_SQUARE),
        ranges={"height": DETECTION_SIDES, "width": DETECTION_SIDES},
        warmup=[{"image": np.zeros((1, *PAGE, 3), np.uint8)}],
        parameters={**names, **DETECTION},
        tolerance=1e-3,
        half_tolerance=1.0,
        origin=file.path.name,
    )


def _recognition(file: File, names: Mapping[str, str]) -> Graph:
    model = ready_onnx.read(file.path)
    characters = _characters(file)
    inputs, outputs = _shapes(model)
    # The blank is the first class, and a space the last.
    classes = len(characters) + 2
    if [shape[2:] for shape in outputs.values()] != [[classes]] or set(inputs) != {"x"}:
        raise ExportError(
            f"{file.path} is not PP-OCR's recognition network of {len(characters)} characters: it needs the "
            f"input 'x' [B, 3, {CROP_HEIGHT}, W] and one output [B, L, {classes}], but this has {inputs} and "
            f"{outputs}."
        )
    (output,) = outputs
    pixels = file.pixels()
    original = ready_onnx.session(file.path)
    # The index of each class in our vocabulary, where the blank is the last.
    order = np.roll(np.arange(classes, dtype=np.int32), 1)

    def reference(inputs: Arrays, outputs: Arrays) -> Arrays:
        (scores,) = original.run(None, {"x": pixels.normalise(inputs["crop"])})
        best = scores.max(-1)
        # Of two classes that are as good as equal, rounding chooses.
        chosen = np.take_along_axis(scores, (outputs["classes"][..., None] + 1) % classes, -1)[..., 0]
        right = np.where(chosen > best - 1e-4, outputs["classes"], order[scores.argmax(-1)])
        return {"classes": right, "probabilities": best}

    after = f"""
after (float[batch, steps, {classes}] {output})
=> (int32[batch, steps] classes, float[batch, steps] probabilities)
<
  int64[1] last = {{2}},
  int32[{classes}] order = {{{", ".join(map(str, order))}}}
>
{{
  best = ArgMax <axis = 2, keepdims = 0> ({output})
  classes = Gather (order, best)
  probabilities = ReduceMax <keepdims = 0> ({output}, last)
}}
"""
    return Graph(
        model="doctr_recognition",
        module=ready_onnx.wrap(model, pixels.graph("crop", "height, width"), after),
        inputs={"crop": _lines(1, 2, 320)},
        outputs={"classes": ("batch", "steps"), "probabilities": ("batch", "steps")},
        dynamic={"crop": {0: "batch", 2: "width"}},
        cases=[
            {"crop": _lines(2, 1, 512)},
            {"crop": _lines(3, 3, 320)},
        ],
        reference=reference,
        measures=[same_words(words_of("ctc", "".join(characters) + " "))],
        photos=partial(photos.words, CROP_HEIGHT, CROP_WIDTHS[0]),
        ranges={"width": ranges.of_sizes(CROP_WIDTHS)},
        warmup=[{"crop": np.zeros((1, CROP_HEIGHT, CROP_WIDTHS[0], 3), np.uint8)}],
        parameters={**names, **RECOGNITION, "vocabulary": "".join(characters) + " "},
        max_batch_size=MAX_CROPS,
        origin=file.path.name,
    )


def _lines(seed: int, count: int, width: int) -> np.ndarray[Any, Any]:
    """Return pictures of a line of text each, uint8 [n, CROP_HEIGHT, width, 3]."""
    small = text_images(seed, count, CROP_HEIGHT // 4, width // 4)
    return small.repeat(4, axis=1).repeat(4, axis=2)


def _characters(file: File) -> list[str]:
    """Return the characters of the classes: of the file's notes, or of inference.yml beside it."""
    model = onnx.load(str(file.path), load_external_data=False)
    notes = {entry.key: entry.value for entry in model.metadata_props}
    characters = (
        notes["character"].split("\n")
        if "character" in notes
        else file.setting("PostProcess", "character_dict")
    )
    if (
        not isinstance(characters, list)
        or not characters
        or any(not isinstance(entry, str) or len(entry) != 1 for entry in characters)
    ):
        raise ExportError(
            f"{file.path} does not say its characters: its notes need 'character', or inference.yml beside "
            "it PostProcess.character_dict, one character an entry."
        )
    return list(characters)


def _shapes(model: Any) -> tuple[dict[str, list[int | str]], dict[str, list[int | str]]]:
    return ready_onnx.shapes(model.graph.input), ready_onnx.shapes(model.graph.output)

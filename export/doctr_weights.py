"""Where docTR's networks come from: its own downloads, a folder of such files, or a seed."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from export import hub, weights
from export.demo.scenes import ALPHABET
from export.errors import ExportError, first_line
from export.weights import Options

# The least side of a word, in pixels of the map, that docTR's post-processor of each kind of network keeps.
# All other numbers of theirs are attributes of the models.
DETECTORS = {"db_resnet50": 2, "db_mobilenet_v3_large": 2, "linknet_resnet18": 0, "fast_base": 0}
# How each network's classes become characters: the gateway's name for it.
RECOGNIZERS = {
    "crnn_vgg16_bn": "ctc",
    "crnn_mobilenet_v3_small": "ctc",
    "vitstr_small": "attention",
    "parseq": "attention",
}
DEFAULT = "db_resnet50-crnn_vgg16_bn"
SUFFIXES = (".safetensors", ".pt")

# In checkpoints of docTR before 0.11.1, unused since: https://github.com/mindee/doctr/issues/1911
RETIRED = re.compile(r"decoder\.(cross_)?attention_norm\.(weight|bias)")

# Of random detection weights: so much of a page is text.
TEXT_SHARE = 0.15
DEEP_LEVELS = 0.05
CALIBRATION_SIZE, MARGIN = 512, 64
LOGIT_SPREAD = 3.0


@dataclass(frozen=True)
class Pair:
    """A variant: what its two networks are called and made with."""

    detector: str
    recognizer: str
    image_size: int = 1024
    detector_arguments: Mapping[str, Any] = field(default_factory=dict)
    recognizer_arguments: Mapping[str, Any] = field(default_factory=dict)
    unclip_ratio: float | None = None
    """How much the detector's words are grown, where it is not docTR's own number."""


TINY = Pair(
    "db_mobilenet_v3_large",
    "crnn_mobilenet_v3_small",
    image_size=256,
    detector_arguments={"head_chans": 32},
    recognizer_arguments={"rnn_units": 16},
)
# What this project trains itself: see export/demo.
DEMO = Pair(
    "db_mobilenet_v3_large",
    "crnn_mobilenet_v3_small",
    image_size=384,
    detector_arguments={"head_chans": 48, "bin_thresh": 0.5, "box_thresh": 0.5},
    recognizer_arguments={"rnn_units": 96, "vocab": ALPHABET},
    # Growing by less makes less of errors.
    unclip_ratio=0.5,
)


@dataclass(frozen=True)
class Networks:
    """docTR's own models, as `doctr.models.ocr_predictor` takes them, and what they are called."""

    pair: Pair
    variant: str
    detector: Any
    recognizer: Any


def load(options: Options) -> Networks:
    """Build both networks of a variant, in evaluation mode."""
    pair, variant = _pair(options)
    if options.revision is not None:
        raise ExportError("docTR's downloads have no revisions: leave --revision out.")
    load_one = {"hub": _download, "random": _random, "demo": _demo}.get(options.weights, _from_folder)
    detector = load_one(options, pair.detector, _detector(pair))
    recognizer = load_one(options, pair.recognizer, _recognizer(pair, options))
    for model in (detector, recognizer):
        model.eval()
    detector.cfg = {**detector.cfg, "input_shape": (3, pair.image_size, pair.image_size)}
    return Networks(pair, variant, detector, recognizer)


def new_detector(pair: Pair) -> Any:
    """Build a detection network that is to be trained."""
    return _detector(pair)(False)


def new_recognizer(pair: Pair) -> Any:
    """Build a recognition network that is to be trained."""
    return _recognizer(pair, Options())(False)


def text_images(seed: int, count: int, height: int, width: int) -> np.ndarray[Any, Any]:
    """Pictures of text, uint8 [n, height, width, 3]: a few sizes, colours and backgrounds, some noise."""
    random = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        light, dark = random.integers(150, 256, 3), random.integers(0, 120, 3)
        picture = Image.new("RGB", (width, height), tuple(map(int, light)))
        canvas = ImageDraw.Draw(picture)
        y = int(random.integers(0, 1 + height // 8))
        while y < height:
            size = int(random.integers(max(8, height // 40), max(10, min(height, 2 + height // 12, 60))))
            font = ImageFont.load_default(size)
            x = int(random.integers(0, 1 + width // 8))
            while x < width:
                word = "".join(map(chr, random.integers(33, 127, random.integers(1, 12))))
                canvas.text((x, y), word, tuple(map(int, dark)), font)
                x += int(size * (0.7 * len(word) + random.uniform(0.5, 3)))
            y += int(size * random.uniform(1.2, 2.5))
        noisy = np.asarray(picture).astype(np.int64) + random.integers(-20, 21, (height, width, 3))
        images.append(noisy.clip(0, 255).astype(np.uint8))
    return np.stack(images)


def normalised(images: np.ndarray[Any, Any], model: Any) -> Tensor:
    """uint8 [n, H, W, 3] as docTR's PreProcessor hands them to a model: float32 [n, 3, H, W]."""
    mean, std = (torch.tensor(model.cfg[name]).reshape(3, 1, 1) for name in ("mean", "std"))
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255) - mean) / std


def _pair(options: Options) -> tuple[Pair, str]:
    if options.weights == "demo":
        return DEMO, "demo"
    if options.size == "tiny":
        return TINY, "tiny"
    name = options.variant or DEFAULT
    detector, _, recognizer = name.partition("-")
    if detector not in DETECTORS or recognizer not in RECOGNIZERS:
        raise ExportError(
            f"There is no variant {name!r}: it is a detection network ({', '.join(DETECTORS)}), a hyphen, "
            f"and a recognition network ({', '.join(RECOGNIZERS)})."
        )
    return Pair(detector, recognizer), name


Maker = Callable[[bool], Any]


def _detector(pair: Pair) -> Maker:
    from doctr.models import detection

    def make(pretrained: bool) -> Any:
        # docTR would download a backbone even where all weights are replaced.
        model = getattr(detection, pair.detector)(
            pretrained=pretrained, pretrained_backbone=False, **pair.detector_arguments
        )
        if pair.unclip_ratio is not None:
            model.postprocessor.unclip_ratio = pair.unclip_ratio
        return model

    return make


def _recognizer(pair: Pair, options: Options) -> Maker:
    from doctr.models import recognition

    arguments = dict(pair.recognizer_arguments)
    if options.vocabulary is not None:
        arguments["vocab"] = _vocabulary(options.vocabulary)
    return lambda pretrained: getattr(recognition, pair.recognizer)(
        pretrained=pretrained, pretrained_backbone=False, **arguments
    )


def _vocabulary(path: Path) -> str:
    text = path.read_text(encoding="utf-8").rstrip("\r\n")
    if not text or len(set(text)) != len(text) or "\n" in text:
        raise ExportError(
            f"{path} is no vocabulary: that is one line of characters in the order of the classes, each once."
        )
    return text


def _download(options: Options, name: str, make: Maker) -> Any:
    if options.size == "tiny":
        raise ExportError("The hub has no tiny weights: use --weights random or a folder.")
    if options.vocabulary is not None:
        raise ExportError("docTR's own weights bring their vocabulary: leave --vocabulary out.")
    try:
        return make(True)
    except Exception as error:
        raise hub.fault(name, error) from error


def _demo(options: Options, name: str, make: Maker) -> Any:
    if options.vocabulary is not None:
        raise ExportError("The demo weights bring their vocabulary: leave --vocabulary out.")
    return _from_folder(replace(options, weights=str(weights.demo_weights("doctr"))), name, make)


def _from_folder(options: Options, name: str, make: Maker) -> Any:
    model = make(False)
    path = _find(Path(options.weights), name)
    state = _read(path)
    present, wanted = state.keys(), model.state_dict()
    if lacking := sorted(wanted.keys() - present):
        raise ExportError(f"{path} lacks weights of {name} ({len(lacking)}, the first is {lacking[0]}).")
    if unknown := sorted(present - wanted.keys()):
        raise ExportError(f"{path} is not of {name}: it has {unknown[0]} ({len(unknown)} such weights).")
    for key, value in wanted.items():
        if state[key].shape != value.shape:
            hint = " (--vocabulary names its characters)" if key.startswith(("linear.", "head.")) else ""
            raise ExportError(
                f"{path}: {key} is {list(state[key].shape)}, not {list(value.shape)} as in {name}{hint}."
            )
    model.load_state_dict(state)
    return model


def _find(folder: Path, name: str) -> Path:
    if not folder.is_dir():
        raise ExportError(f"{folder} is not a folder; --weights takes hub, random or a folder.")
    # Such as docTR's own cache, where a file's name ends in a part of its hash: db_resnet50-79bd7d70.pt.
    pattern = re.compile(rf"{re.escape(name)}(-[0-9a-f]+)?")
    found = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix in SUFFIXES and pattern.fullmatch(path.stem) is not None
    ]
    if len(found) != 1:
        files = f"{name}.pt or {name}.safetensors"
        raise ExportError(f"{folder} has {'more than one' if found else 'no'} {files}.")
    return found[0]


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            # Anything but tensors in a pickled file could run code.
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ExportError(f"Cannot read {path}: {first_line(error)}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ExportError(f"{path} holds something else than weights by their names.")
    return {key: value for key, value in state.items() if not RETIRED.fullmatch(key)}


def _random(options: Options, name: str, make: Maker) -> Any:
    """Seeded weights, with statistics of pictures of text so that outputs vary as a trained model's do.

    With the statistics of a new BatchNorm, signals grow from layer to layer until everything saturates.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(options.seed)
        model = make(False).eval()
        (_calibrate_detector if name in DETECTORS else _calibrate_recognizer)(model)
    return model


def _calibrate_detector(model: Any) -> None:
    for level in list(getattr(model.fpn, "out_branches", []) if hasattr(model, "fpn") else [])[1:]:
        # What is near a pixel decides, or a few blobs as large as the page are all that is found.
        level[1].weight.mul_(DEEP_LEVELS)
    head = model.prob_head if hasattr(model, "prob_head") else model.classifier
    layers = [module for module in head.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    for layer in layers:
        if isinstance(layer, nn.ConvTranspose2d):
            # The same for all places of the kernel: random ones make a pattern too fine to be words.
            layer.weight.copy_(layer.weight.mean((2, 3), keepdim=True).expand_as(layer.weight))
    images = text_images(0, 2, CALIBRATION_SIZE, CALIBRATION_SIZE)
    # As pages are padded.
    images[0, :, :MARGIN] = images[0, :, -MARGIN:] = images[1, :MARGIN] = images[1, -MARGIN:] = 0
    pixels = normalised(images, model)
    _calibrate_norms(model, pixels)
    logits = _logits(model, pixels)
    layers[-1].weight.mul_(LOGIT_SPREAD / logits.std())
    if layers[-1].bias is not None:
        threshold = torch.logit(torch.tensor(model.postprocessor.bin_thresh))
        share = _logits(model, pixels).flatten().kthvalue(round((1 - TEXT_SHARE) * logits.numel())).values
        layers[-1].bias.add_(threshold - share)


def _calibrate_recognizer(model: Any) -> None:
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.normal_(std=module.in_features**-0.5)
        elif isinstance(module, nn.Embedding):
            module.weight.normal_(std=module.embedding_dim**-0.5)
    _, height, width = model.cfg["input_shape"]
    pixels = normalised(text_images(0, 16, height, width), model)
    _calibrate_norms(model, pixels)
    head = model.linear if hasattr(model, "linear") else model.head
    logits = _logits(model, pixels)
    # Every character as likely as any other, or a few of them are all that is read.
    centred = logits - logits.mean((0, 1))
    head.bias.sub_(logits.mean((0, 1)))
    for parameter in (head.weight, head.bias):
        parameter.mul_(LOGIT_SPREAD / centred.std())


def _calibrate_norms(model: Any, pixels: Tensor) -> None:
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None
    _logits(model, pixels)
    for norm in norms:
        norm.eval()


def _logits(model: Any, pixels: Tensor) -> Tensor:
    model.exportable = True
    try:
        return torch.as_tensor(model(pixels)["logits"])
    finally:
        model.exportable = False

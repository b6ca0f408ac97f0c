"""Where docTR's networks come from: its own downloads, a folder of such files, our demo, or a seed."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from export import hub, weights
from export.doctr_calibration import calibrate_detector, calibrate_recognizer
from export.errors import ExportError, first_line
from export.families.doctr import DEFAULT, DEMO, DETECTORS, FAMILY, RECOGNIZERS, TINY, Pair
from export.weights import Options

SUFFIXES = (".safetensors", ".pt")

# Weights in checkpoints of docTR before 0.11.1 that later versions do not use: https://github.com/mindee/doctr/issues/1911
RETIRED = re.compile(r"decoder\.(cross_)?attention_norm\.(weight|bias)")


@dataclass(frozen=True)
class Networks:
    """docTR's own models, as `doctr.models.ocr_predictor` takes them, and the names of their variant."""

    pair: Pair
    variant: str
    detector: Any
    recognizer: Any


def build(options: Options) -> Networks:
    """Build both networks of a variant, in evaluation mode."""
    pair, variant = _pair(options)
    if options.revision is not None:
        raise ExportError("docTR's downloads have no revisions: leave --revision out.")
    make_network = {"hub": _download, "random": _random, "demo": _demo}.get(options.weights, _from_folder)
    detector = make_network(options, pair.detector, _detector(pair))
    recognizer = make_network(options, pair.recognizer, _recognizer(pair, options))
    for model in (detector, recognizer):
        model.eval()
    detector.cfg = {**detector.cfg, "input_shape": (3, pair.image_size, pair.image_size)}
    return Networks(pair, variant, detector, recognizer)


def new_detector(pair: Pair) -> Any:
    """Build a detection network to be trained."""
    return _detector(pair)(False)


def new_recognizer(pair: Pair) -> Any:
    """Build a recognition network to be trained."""
    return _recognizer(pair, Options())(False)


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
        # Otherwise docTR downloads a backbone, even if all weights are replaced afterwards.
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
            f"{path} is no vocabulary: it must be one line of characters in the order of the classes, "
            "each once."
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
    return _from_folder(replace(options, weights=str(weights.demo_weights(FAMILY.name))), name, make)


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
    # In docTR's own cache, file names end in a part of a hash: db_resnet50-79bd7d70.pt.
    pattern = re.compile(rf"{re.escape(name)}(-[0-9a-f]+)?")
    files = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix in SUFFIXES and pattern.fullmatch(path.stem) is not None
    ]
    if len(files) != 1:
        number = "more than one" if files else "no"
        raise ExportError(f"{folder} has {number} {name}.pt or {name}.safetensors.")
    return files[0]


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
        raise ExportError(f"{path} holds something other than weights by their names.")
    return {key: value for key, value in state.items() if not RETIRED.fullmatch(key)}


def _random(options: Options, name: str, make: Maker) -> Any:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(options.seed)
        model = make(False).eval()
        (calibrate_detector if name in DETECTORS else calibrate_recognizer)(model)
    return model

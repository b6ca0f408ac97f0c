"""docTR: what can be exported, and the networks that its variants consist of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from export.demo.scenes import ALPHABET
from export.family import ExporterFamily
from export.weights import Options

# The shortest side of a word, in pixels of the map, that docTR's post-processor of each network keeps.
# All other numbers of docTR's are attributes of the models.
DETECTORS = {"db_resnet50": 2, "db_mobilenet_v3_large": 2, "linknet_resnet18": 0, "fast_base": 0}
# How the classes of each network become characters, by the gateway's name for it.
RECOGNIZERS = {
    "crnn_vgg16_bn": "ctc",
    "crnn_mobilenet_v3_small": "ctc",
    "vitstr_small": "attention",
    "parseq": "attention",
}
DEFAULT = "db_resnet50-crnn_vgg16_bn"


@dataclass(frozen=True)
class Pair:
    """A variant: the names of its two networks, and the arguments that make them."""

    detector: str
    recognizer: str
    image_size: int = 1024
    detector_arguments: Mapping[str, Any] = field(default_factory=dict)
    recognizer_arguments: Mapping[str, Any] = field(default_factory=dict)
    unclip_ratio: float | None = None
    """How much the detected words are grown; None for docTR's own ratio."""


TINY = Pair(
    "db_mobilenet_v3_large",
    "crnn_mobilenet_v3_small",
    image_size=256,
    detector_arguments={"head_chans": 32},
    recognizer_arguments={"rnn_units": 16},
)
# The sizes that `export.demo.train_doctr` trains.
DEMO = Pair(
    "db_mobilenet_v3_large",
    "crnn_mobilenet_v3_small",
    image_size=384,
    detector_arguments={"head_chans": 48, "bin_thresh": 0.5, "box_thresh": 0.5},
    recognizer_arguments={"rnn_units": 96, "vocab": ALPHABET},
    # Words that grow by less make errors of the map grow by less.
    unclip_ratio=0.5,
)

# The sizes of PP-OCRv6 by the names of their variants. They come from ready ONNX files.
PP_OCR = {"pp_ocrv6_small": "small", "pp_ocrv6_medium": "medium", "pp_ocrv6_tiny": "tiny"}
# What --weights takes for the files that the package of this name ships: those of the size small.
RAPIDOCR = "rapidocr"


def _extra(options: Options) -> str:
    if options.variant not in PP_OCR:
        return "export"
    return "ocr" if options.weights == RAPIDOCR else "onnx"


FAMILY = ExporterFamily(
    name="doctr",
    variants=(DEFAULT, *PP_OCR),
    other_variants=f"any detector-recognizer pair of {', '.join(DETECTORS)} and {', '.join(RECOGNIZERS)}",
    weights=(
        "hub (docTR's own downloads), or a folder of such files. For pp_ocrv6: rapidocr (the package, which "
        "ships the size small), or a folder of PaddleOCR's ONNX files"
    ),
    licence="Apache-2.0",
    module="export.doctr",
    extra=_extra,
    ready_variants=dict.fromkeys(PP_OCR, "export.pp_ocr"),
    ready_weights=RAPIDOCR,
)

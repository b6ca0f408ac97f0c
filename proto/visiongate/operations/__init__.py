"""The client's methods, one file a task: arguments to a request, a response to results."""

from visiongate.operations.detection import detect
from visiongate.operations.embedding import classify, compare, embed_images, embed_texts
from visiongate.operations.gaze import estimate_gaze
from visiongate.operations.models import list_models
from visiongate.operations.operation import Operation
from visiongate.operations.segmentation import (
    encode_image,
    segment,
    segment_everything,
    segment_phrases,
)
from visiongate.operations.text import recognize_text

__all__ = [
    "Operation",
    "classify",
    "compare",
    "detect",
    "embed_images",
    "embed_texts",
    "encode_image",
    "estimate_gaze",
    "list_models",
    "recognize_text",
    "segment",
    "segment_everything",
    "segment_phrases",
]

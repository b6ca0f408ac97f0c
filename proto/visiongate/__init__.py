"""Client of visiongate: what is in an image, in numpy arrays."""

import importlib
from types import ModuleType

from visiongate.client import AsyncClient, Client
from visiongate.errors import VisiongateError
from visiongate.operations.detection import Detection
from visiongate.operations.embedding import LabelScore, Text
from visiongate.operations.gaze import Face
from visiongate.operations.image import EncodedImage, ImageId, Pixels
from visiongate.operations.models import Model
from visiongate.operations.segmentation import GridMask, Mask, SegmentedObject
from visiongate.operations.text import Page, Word

__all__ = [
    "AsyncClient",
    "Client",
    "Detection",
    "EncodedImage",
    "Face",
    "GridMask",
    "ImageId",
    "LabelScore",
    "Mask",
    "Model",
    "Page",
    "Pixels",
    "SegmentedObject",
    "Text",
    "VisiongateError",
    "Word",
]


def __getattr__(name: str) -> ModuleType:
    """`visiongate.draw` without an import of its own, and without its cost for those who do not draw."""
    if name == "draw":
        return importlib.import_module("visiongate.draw")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Client of visiongate: asks vision models what is in images, and returns NumPy arrays."""

import importlib
from types import ModuleType

from visiongate.answer import Answer, AnswerInfo, ArrayAnswer, ImageInfo, Timings
from visiongate.client import AsyncClient, Client
from visiongate.coco import CocoDataset
from visiongate.detections import Detection, Detections
from visiongate.errors import (
    CallCancelledError,
    ClientClosedError,
    ConnectionSetupError,
    DeadlineExceededError,
    ForkedClientError,
    ImageNotCachedError,
    ImageNotFetchedError,
    InternalError,
    InvalidArgumentError,
    MessageTooLargeError,
    NoModelError,
    OverloadedError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
    VisiongateError,
)
from visiongate.masks import Mask
from visiongate.operations.embedding import LabelScore, Text
from visiongate.operations.everything import GridMask
from visiongate.operations.gaze import Face
from visiongate.operations.image import ImageHandle, ImageId, Pixels
from visiongate.operations.models import Model
from visiongate.operations.text import Page, Word

__all__ = [
    "Answer",
    "AnswerInfo",
    "ArrayAnswer",
    "AsyncClient",
    "CallCancelledError",
    "Client",
    "ClientClosedError",
    "CocoDataset",
    "ConnectionSetupError",
    "DeadlineExceededError",
    "Detection",
    "Detections",
    "Face",
    "ForkedClientError",
    "GridMask",
    "ImageHandle",
    "ImageId",
    "ImageInfo",
    "ImageNotCachedError",
    "ImageNotFetchedError",
    "InternalError",
    "InvalidArgumentError",
    "LabelScore",
    "Mask",
    "MessageTooLargeError",
    "Model",
    "NoModelError",
    "OverloadedError",
    "Page",
    "Pixels",
    "Text",
    "Timings",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "VisiongateError",
    "Word",
]


def __getattr__(name: str) -> ModuleType:
    """Import `visiongate.draw` at its first use: programs that do not draw do not pay for it."""
    if name == "draw":
        return importlib.import_module("visiongate.draw")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

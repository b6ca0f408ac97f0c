"""Client of visiongate: what is in an image, in numpy arrays."""

from visiongate.client import AsyncClient, Client
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
from visiongate.operations.detection import Detection
from visiongate.operations.embedding import LabelScore, Text
from visiongate.operations.gaze import Face
from visiongate.operations.image import EncodedImage, ImageId
from visiongate.operations.models import Model
from visiongate.operations.segmentation import GridMask, Mask, SegmentedObject
from visiongate.operations.text import Page, Word

__all__ = [
    "AsyncClient",
    "CallCancelledError",
    "Client",
    "ClientClosedError",
    "ConnectionSetupError",
    "DeadlineExceededError",
    "Detection",
    "EncodedImage",
    "Face",
    "ForkedClientError",
    "GridMask",
    "ImageId",
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
    "SegmentedObject",
    "Text",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "VisiongateError",
    "Word",
]

"""Client of visiongate: what is in an image, in numpy arrays."""

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
from visiongate.operations.gaze import Face
from visiongate.operations.image import EncodedImage, ImageId
from visiongate.operations.models import Model
from visiongate.operations.segmentation import GridMask
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
    "EncodedImage",
    "Face",
    "ForkedClientError",
    "GridMask",
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
    "Text",
    "Timings",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "VisiongateError",
    "Word",
]

"""Client of visiongate: what is in an image, in numpy arrays."""

from visiongate.answer import Answer, AnswerInfo, ArrayAnswer, ImageInfo, Timings
from visiongate.client import AsyncClient, Client
from visiongate.coco import CocoDataset
from visiongate.detections import Detection, Detections
from visiongate.errors import VisiongateError
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
    "Client",
    "CocoDataset",
    "Detection",
    "Detections",
    "EncodedImage",
    "Face",
    "GridMask",
    "ImageId",
    "ImageInfo",
    "LabelScore",
    "Mask",
    "Model",
    "Page",
    "Text",
    "Timings",
    "VisiongateError",
    "Word",
]

"""Client of visiongate: what is in an image, in numpy arrays."""

from visiongate.client import AsyncClient, Client
from visiongate.errors import VisiongateError
from visiongate.operations.detection import Detection
from visiongate.operations.image import EncodedImage, ImageId
from visiongate.operations.models import Model
from visiongate.operations.segmentation import Mask, SegmentedObject

__all__ = [
    "AsyncClient",
    "Client",
    "Detection",
    "EncodedImage",
    "ImageId",
    "Mask",
    "Model",
    "SegmentedObject",
    "VisiongateError",
]

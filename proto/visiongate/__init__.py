"""Client of visiongate: what is in an image, in numpy arrays."""

from visiongate.client import AsyncClient, Client
from visiongate.results import (
    Detection,
    EncodedImage,
    ImageId,
    Mask,
    Model,
    SegmentedObject,
    VisiongateError,
)

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

"""The client's methods, one file a task: arguments to a request, a response to results."""

from visiongate.operations.detection import detect
from visiongate.operations.models import list_models
from visiongate.operations.operation import Operation
from visiongate.operations.segmentation import encode_image, segment, segment_phrases

__all__ = ["Operation", "detect", "encode_image", "list_models", "segment", "segment_phrases"]

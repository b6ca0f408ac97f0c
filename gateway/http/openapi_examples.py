"""Requests that can be sent as they are: the demo models find something in their picture."""

import base64
import io
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor
from PIL import Image, ImageDraw

from visiongate.v1 import image_pb2

_CIRCLE = (4, 4, 30, 30)
_SQUARE = (36, 4, 58, 26)
_PHRASES = ["red circle", "blue square"]


def example(method: str, request: Descriptor) -> dict[str, Any]:
    """Return a request of this method as JSON. Of a method that is not known here it has the image alone."""
    known = _examples().get(method)
    if known is not None:
        return known
    return {
        field.name: [_picture()] if field.is_repeated else _picture()
        for field in request.fields
        if field.message_type is image_pb2.Image.DESCRIPTOR
    }


@cache
def _examples() -> dict[str, dict[str, Any]]:
    picture = _picture()
    query = {"phrases": {"values": _PHRASES}}
    return {
        "EmbedImages": {"images": [picture]},
        "EmbedTexts": {"texts": _PHRASES},
        "CompareImagesAndTexts": {
            "subject": {"image": picture},
            "candidates": [{"text": phrase} for phrase in _PHRASES],
        },
        "ClassifyImages": {"images": [picture], "labels": _PHRASES},
        "DetectObjects": {"image": picture, "query": query | {"min_score": 0.3}},
        "BatchDetectObjects": {"images": [picture], "query": query | {"min_score": 0.3}},
        "SegmentRegions": {
            "image": picture,
            "prompts": [
                {"points": [{"point": {"x": 17, "y": 17}, "label": "POINT_LABEL_FOREGROUND"}]},
                {"box": {"x_min": 36, "y_min": 4, "x_max": 59, "y_max": 27}},
            ],
            "mask_format": "MASK_FORMAT_POLYGONS",
        },
        "SegmentPhrases": {"image": picture, "query": query},
        "BatchSegmentPhrases": {"images": [picture], "query": query},
        "SegmentEverything": {"image": picture, "points_per_side": 8},
        "BatchSegmentEverything": {"images": [picture], "points_per_side": 8},
        "EncodeImage": {"image": picture},
        "RecognizeText": {"images": [picture]},
        "EstimateGaze": {
            "image": picture,
            "boxes": {"boxes": [{"x_min": 4, "y_min": 4, "x_max": 31, "y_max": 31}]},
        },
        "ListModels": {},
    }


def _picture() -> dict[str, str]:
    return {"encoded": base64.b64encode(picture_png()).decode()}


@cache
def picture_png() -> bytes:
    """Draw a red circle and a blue square on white, 64 pixels a side, as a small PNG file."""
    picture = Image.new("RGB", (64, 64), "white")
    draw = ImageDraw.Draw(picture)
    draw.ellipse(_CIRCLE, fill=(220, 40, 40))
    draw.rectangle(_SQUARE, fill=(40, 80, 220))
    file = io.BytesIO()
    picture.quantize(4).save(file, "PNG", optimize=True)
    return file.getvalue()

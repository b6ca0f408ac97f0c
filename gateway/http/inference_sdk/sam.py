"""Segment Anything by points, as its own ONNX file takes them."""

import numpy as np
from numpy.typing import NDArray

from gateway.errors import InvalidArgumentError
from gateway.http.inference_sdk import masks
from gateway.http.inference_sdk.asked import IMAGE_NAMES, Asked
from gateway.http.inference_sdk.errors import NotServedError
from gateway.http.json_text import Tree
from gateway.models.masks import encode_polygons

_VERSION = "sam_version_id"
_LABELS = {1: "POINT_LABEL_FOREGROUND", 0: "POINT_LABEL_BACKGROUND"}
# Of a point that is none: the network's inputs are filled up with such.
_PADDING = -1


async def segment_image(asked: Asked) -> Tree:
    """Segment what all points of the request together point at."""
    if "embeddings" in asked.body:
        raise NotServedError("embeddings: are not taken, send the image: its embedding is kept")
    if asked.flag("has_mask_input", default=False):
        raise NotServedError("has_mask_input: is not served, POST /v1/regions:segment takes earlier masks")
    if masks.format_of(asked, "json") != "polygon":
        raise InvalidArgumentError("format", "must be json")
    points, names = _points(asked)
    request = {
        "image": image_or_id(asked),
        "prompts": [{"points": points}],
        "mask_format": masks.api_format("polygon"),
        "include_logits": True,
        "model": asked.version(_VERSION),
    }
    names |= {**IMAGE_NAMES, "image.image_id": "image_id", "prompts": "point_coords", "model": _VERSION}
    response = await asked.call("SegmentRegions", request, names)
    [region] = response.regions
    [mask] = region.masks
    logits = np.frombuffer(mask.logits.data, "<f4").reshape(mask.logits.height, mask.logits.width)
    return {"masks": masks.mask_tree(mask), "low_res_masks": _outlines(logits > 0), "time": asked.seconds()}


def image_or_id(asked: Asked) -> Tree:
    """Return the image, as the API takes it, or the `image_id` of an earlier answer where there is none."""
    if "image" not in asked.body and "image_id" in asked.body:
        return {"image_id": asked.body["image_id"]}
    return asked.image()


def _points(asked: Asked) -> tuple[list[Tree], dict[str, str]]:
    """Return the points as the API takes them, and the caller's names of them."""
    places, labels = asked.required("point_coords"), asked.required("point_labels")
    if not isinstance(places, list) or not isinstance(labels, list) or len(places) != len(labels):
        raise InvalidArgumentError(
            "point_labels", "must be a list of as many labels as point_coords has points"
        )
    points: list[Tree] = []
    names: dict[str, str] = {}
    for index, (place, label) in enumerate(zip(places, labels, strict=True)):
        if not isinstance(label, int | float) or label not in (*_LABELS, _PADDING):
            raise InvalidArgumentError(
                f"point_labels[{index}]", "must be 1 (on the object), 0 (off it) or -1"
            )
        if not isinstance(place, list) or len(place) != 2:
            raise InvalidArgumentError(f"point_coords[{index}]", "must be two numbers: x and y")
        if label != _PADDING:
            names[f"prompts[0].points[{len(points)}].point"] = f"point_coords[{index}]"
            points.append({"point": {"x": place[0], "y": place[1]}, "label": _LABELS[int(label)]})
    return points, names


def _outlines(mask: NDArray[np.bool_]) -> Tree:
    return masks.outlines(polygon.exterior for polygon in encode_polygons(mask))

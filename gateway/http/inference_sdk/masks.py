"""Masks, as inference-sdk reads them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.http.inference_sdk.asked import Asked
from gateway.http.inference_sdk.errors import NotServedError
from gateway.http.json_text import Tree

_OURS = {"polygon": "MASK_FORMAT_POLYGONS", "rle": "MASK_FORMAT_RLE"}
_WORDS = {"json": "polygon", "polygon": "polygon", "rle": "rle"}


def format_of(asked: Asked, default: str) -> str:
    """Return how a request wants its masks: polygon or rle."""
    word = asked.choice("format", default, [*_WORDS, "binary"])
    if word == "binary":
        raise NotServedError("format: binary is not served, ask for json or rle")
    return _WORDS[word]


def api_format(name: str) -> str:
    """Return the API's name of a format."""
    return _OURS[name]


def mask_tree(mask: Any) -> Tree:
    """Return a mask's run lengths, or the outlines of its parts, without holes, the largest first."""
    if mask.HasField("rle"):
        return {"size": [mask.rle.height, mask.rle.width], "counts": mask.rle.counts}
    return outlines(np.array(polygon.exterior.coordinates, np.int32) for polygon in mask.polygons.polygons)


def outlines(rings: Iterator[NDArray[np.int32]]) -> Iterator[NDArray[np.int32]]:
    """Return outlines as points [n,2], the longest first."""
    points = [ring.reshape(-1, 2) for ring in rings]
    return iter(sorted(points, key=_extent, reverse=True))


def prediction(mask: Any, confidence: float, name: str) -> Tree:
    """Return a mask and how sure the model is of it."""
    return {"masks": mask_tree(mask), "confidence": confidence, "format": name}


def _extent(points: NDArray[np.int32]) -> int:
    """Return the area of the box around an outline."""
    width, height = np.ptp(points, axis=0) + 1
    return int(width) * int(height)

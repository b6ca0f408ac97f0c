"""Masks of objects."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco


@dataclass(frozen=True, eq=False)
class Mask:
    """Pixels of an object.

    box: int [4] around them, right and bottom edges exclusive. rle: COCO's compressed run lengths,
    {"size": [H, W], "counts": str}. logits: float32 [m, m] if the call asked for them, else None; a later
    prompt takes them to refine the mask.
    """

    predicted_iou: float
    box: NDArray[np.int64]
    area: int
    rle: Mapping[str, Any]
    logits: NDArray[np.float32] | None

    @cached_property
    def pixels(self) -> NDArray[np.bool_]:
        """Bool [H, W] of the image's size, decoded at the first access: many masks take much memory."""
        rle = {"size": self.rle["size"], "counts": self.rle["counts"].encode()}
        decoded: NDArray[np.uint8] = coco.decode(rle)
        return decoded.astype(np.bool_, order="C")

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON holds: the pixels as run lengths."""
        return {
            "predicted_iou": round(self.predicted_iou, 4),
            "area": self.area,
            "box": self.box.tolist(),
            "rle": dict(self.rle),
        }

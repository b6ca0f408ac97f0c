"""Pictures of labels, drawn on their photos, for people to look at before they train with them."""

import hashlib
import heapq
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from visiongate import draw
from visiongate.masks import Mask

MAX_SIDE = 1280
"""Of a preview, in pixels: boxes and captions can be told apart, and a folder of them stays small."""


def sample(ids: Iterable[str], count: int) -> list[str]:
    """Return `count` ids that are spread over all, in their order, the same each time.

    More photos in the folder change the sample little.
    """
    numbered = enumerate(dict.fromkeys(ids))
    chosen = heapq.nsmallest(count, numbered, key=lambda pair: hashlib.sha256(pair[1].encode()).digest())
    return [name for _, name in sorted(chosen)]


def preview(file: bytes, labels: Sequence[Mapping[str, Any]]) -> Image.Image:
    """Return a photo with its labels, a colour for each class.

    file: the bytes of the image file. labels: as `Classes.labels` returns them. Raises OSError or ValueError
    for a file that Pillow cannot read.
    """
    with Image.open(io.BytesIO(file)) as image:
        return draw.draw(image, [_drawn(label) for label in labels], max_side=MAX_SIDE)


def preview_name(number: int, name: str) -> str:
    """Return the name of a preview's file: a number, which makes it unique, and what is left of the id."""
    stem = "".join(
        letter if letter.isalnum() or letter in "-_." else "_" for letter in PurePosixPath(name).stem
    )
    return f"{number:04d}-{stem[:60]}.jpg"


def _drawn(label: Mapping[str, Any]) -> draw.Item:
    mask = label.get("mask")
    return draw.Item(
        label["phrase_index"],
        f"{label['phrase']} {label['score']:.2f}",
        box=np.array([label["box"][side] for side in ("x_min", "y_min", "x_max", "y_max")]),
        mask=None if mask is None else _pixels(mask),
    )


def _pixels(mask: Mapping[str, Any]) -> Any:
    box = np.array([mask["box"][side] for side in ("x_min", "y_min", "x_max", "y_max")])
    return Mask(mask["predicted_iou"], box, mask["area"], mask["rle"], None).pixels

"""Pictures of labels, drawn on their photos, for people to look at before they train with them."""

import hashlib
import heapq
import io
from collections.abc import Iterable
from pathlib import PurePosixPath

from PIL import Image

from visiongate import draw
from visiongate.detections import Detections

MAX_SIDE = 1280
"""Of a preview, in pixels: boxes and captions can be told apart, and a folder of them stays small."""


def sample(ids: Iterable[str], count: int) -> list[str]:
    """Return `count` ids that are spread over all, in their order, the same each time.

    More photos in the folder change the sample little.
    """
    numbered = enumerate(dict.fromkeys(ids))
    chosen = heapq.nsmallest(count, numbered, key=lambda pair: hashlib.sha256(pair[1].encode()).digest())
    return [name for _, name in sorted(chosen)]


def preview(file: bytes, labels: Detections, max_side: int = MAX_SIDE) -> Image.Image:
    """Return a photo, of at most `max_side` pixels a side, with its labels, a colour for each class.

    file: the bytes of the image file. Raises OSError or ValueError for one that Pillow cannot read.
    """
    with Image.open(io.BytesIO(file)) as image:
        return draw.draw(image, labels.drawn(), max_side=max_side)


def preview_name(number: int, name: str) -> str:
    """Return the name of a preview's file: a number, which makes it unique, and what is left of the id."""
    stem = "".join(
        letter if letter.isalnum() or letter in "-_." else "_" for letter in PurePosixPath(name).stem
    )
    return f"{number:04d}-{stem[:60]}.jpg"

"""Small pictures that a page can hold in itself."""

import base64
import io
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from visiongate.pillow_images import to_rgb

MAX_SIDE = 240
"""Of a thumbnail, in pixels."""

_QUALITY = 80

Picture = bytes | Path | Image.Image | Callable[[], bytes | Image.Image]
"""The bytes of an image file, its path, an image, or what returns one of them when it is its turn."""


def data_uri(picture: Picture) -> str:
    """Return a JPEG of at most MAX_SIDE pixels a side, upright, as a data URI; empty if it cannot be read."""
    try:
        return "data:image/jpeg;base64," + base64.b64encode(_jpeg(picture)).decode("ascii")
    # Pillow raises almost anything for files that were damaged, or made to harm.
    except Exception:
        return ""


def _jpeg(picture: Picture) -> bytes:
    if callable(picture):
        picture = picture()
    if isinstance(picture, Image.Image):
        return _small_jpeg(picture)
    with Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture) as image:
        # JPEG files can be read at a half, a quarter or an eighth of their size, if that is large enough,
        # which is much quicker.
        image.draft("RGB", (MAX_SIDE, MAX_SIDE))
        return _small_jpeg(image)


def _small_jpeg(image: Image.Image) -> bytes:
    small = to_rgb(image)
    small.thumbnail((MAX_SIDE, MAX_SIDE))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()

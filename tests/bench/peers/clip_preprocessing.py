"""CLIP's preprocessing by Pillow alone, and how photos share a body. Nothing of the gateway."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image


def preprocess(content: bytes, size: int, *, scaled: bool) -> Any:
    """Decode a photo, bring its shorter side to the size, and crop the middle: uint8 [S,S,3].

    scaled: the JPEG decoder shrinks it while it decodes, to no less than three times the size.
    """
    picture: Image.Image = Image.open(io.BytesIO(content))
    if scaled:
        picture.draft("RGB", (3 * size, 3 * size))
    picture = picture.convert("RGB")
    width, height = picture.size
    long = int(size * max(width, height) / min(width, height))
    picture = picture.resize((size, long) if width <= height else (long, size), Image.Resampling.BICUBIC)
    left, top = (round((side - size) / 2) for side in picture.size)
    return np.asarray(picture.crop((left, top, left + size, top + size)))


def split(body: bytes) -> list[bytes]:
    """Return the photos of a body: each after its length, in four bytes."""
    photos, at = [], 0
    while at < len(body):
        length = int.from_bytes(body[at : at + 4], "little")
        photos.append(body[at + 4 : at + 4 + length])
        at += 4 + length
    return photos


def join(photos: Sequence[bytes]) -> bytes:
    """Return a body that `split` reads."""
    return b"".join(len(photo).to_bytes(4, "little") + photo for photo in photos)

"""Images as callers have them, to what is sent."""

import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import NewType

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from visiongate.answer import AnswerInfo
from visiongate.v1 import image_pb2

ImageId = NewType("ImageId", str)
"""The name under which the server keeps an image, from `Client.encode_image`."""


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image that the server keeps: give `image_id` to later calls instead of the image."""

    image_id: ImageId
    width: int
    height: int
    info: AnswerInfo = field(default=AnswerInfo(), compare=False, repr=False)
    """What came with it."""


ImageLike = str | os.PathLike[str] | bytes | NDArray[np.uint8] | Image.Image | EncodedImage
"""A path, the bytes of an image file, RGB or grey uint8 pixels [H, W(, 3)], a Pillow image, an image that the
server keeps, or a string that starts with https://: a file that the server fetches, where it allows that."""

URI_START = "https://"

PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})


def image_message(image: ImageLike, name: str = "image") -> image_pb2.Image:
    """The message of an image. `name` is the argument's, for what is wrong with it: "images[3]".

    Raises ValueError or TypeError for what is no image, OSError for a file that cannot be read.
    """
    match image:
        case EncodedImage():
            return image_pb2.Image(image_id=image.image_id)
        case bytes():
            return image_pb2.Image(encoded=image)
        case str() if image.startswith(URI_START):
            return image_pb2.Image(uri=image)
        case str() | os.PathLike():
            return image_pb2.Image(encoded=_read(image, name))
        case np.ndarray():
            return _raw(image, name)
        case Image.Image():
            # Lossless, smaller than pixels, and the server's own rules for grey, 16-bit and alpha hold.
            upright = ImageOps.exif_transpose(image)
            file = io.BytesIO()
            (upright if upright.mode in PNG_MODES else upright.convert("RGB")).save(
                file, "PNG", compress_level=1
            )
            return image_pb2.Image(encoded=file.getvalue())
        case _:
            raise TypeError(
                f"{name} is a path, URI, bytes, pixels or a Pillow image, not {type(image).__name__}"
            )


def _read(path: str | os.PathLike[str], name: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        reason = str(error.strerror).lower()
        raise type(error)(f"{name}: the file {os.fspath(path)[:200]!r} cannot be read: {reason}") from error


def _raw(pixels: NDArray[np.uint8], name: str) -> image_pb2.Image:
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(
            f"{name}: pixels are uint8 [H, W] or [H, W, 3], not {pixels.dtype} {list(pixels.shape)}"
        )
    height, width = pixels.shape[:2]
    return image_pb2.Image(raw=image_pb2.RawImage(rgb=pixels.tobytes(), width=width, height=height))

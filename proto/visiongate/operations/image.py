"""Images as callers have them, to what is sent."""

import os
from dataclasses import dataclass, field
from typing import Literal, NewType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visiongate.answer import AnswerInfo
from visiongate.operations import image_file
from visiongate.operations.image_file import MAX_BYTES, MEBIBYTE, FileLike, check_length, kind_of
from visiongate.pillow_images import lossless_file, to_rgb
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


@dataclass(frozen=True, eq=False, slots=True)
class Pixels:
    """Pixels [H, W(, 1, 3 or 4)] of type uint8, where their colours need a word.

    OpenCV (`cv2.imread`, frames of a `VideoCapture`, results of ultralytics) has blue first:
    `Pixels(frame, color="bgr")`. An array without this class is taken as RGB.
    """

    array: NDArray[np.uint8]
    color: Literal["rgb", "bgr"] = "rgb"

    def __post_init__(self) -> None:
        if self.color not in ("rgb", "bgr"):
            raise ValueError(f'color is "rgb" or "bgr", not {self.color!r}')


ImageLike = FileLike | NDArray[np.uint8] | Pixels | Image.Image | EncodedImage
"""An image in any of the forms that callers have:

- a path, or an address: https:// for a file that the server fetches, where it allows that; file:// and data:
  are read here;
- the bytes of an image file, or a file object that was opened with "rb";
- pixels, uint8 [H, W] grey or [H, W, 3] **RGB** (with a fourth channel, that is dropped). OpenCV's arrays are
  BGR: they give wrong answers, without any error, unless they come as `Pixels(array, color="bgr")`;
- a Pillow image of any mode, which is turned as its EXIF data says;
- an `EncodedImage` that the server keeps.
"""

URI_START = "https://"

# What the server takes of an image file by default.
_MAX_FILE_BYTES = 32 * MEBIBYTE
# Larger arrays are sent as lossless files: that saves about half of the bytes, but takes a second or more.
_MAX_PLAIN_BYTES = 32 * MEBIBYTE


def image_message(image: ImageLike, name: str = "image") -> image_pb2.Image:
    """The message of an image. `name` is the argument's, for what is wrong with it: "images[3]".

    Raises ValueError or TypeError for what is no image, OSError for a file that cannot be read.
    """
    match image:
        case EncodedImage():
            return image_pb2.Image(image_id=image.image_id)
        case str() if image[: len(URI_START)].lower() == URI_START:
            return image_pb2.Image(uri=image)
        case np.ndarray() | Pixels():
            return _from_pixels(_rgb(image, name), name)
        case Image.Image():
            return _from_picture(image, name)
        case str() | os.PathLike() | bytes() | bytearray() | memoryview():
            return image_pb2.Image(encoded=image_file.read(image, name))
        case _ if hasattr(image, "read"):
            return image_pb2.Image(encoded=image_file.read(image, name))
    advice = "; give np.asarray(…) of it" if hasattr(image, "__array__") else ""
    raise TypeError(
        f"{name} is a path, an address, bytes, pixels or a Pillow image, not {kind_of(image)}{advice}"
    )


def _from_picture(picture: Image.Image, name: str) -> image_pb2.Image:
    if not picture.width or not picture.height:
        raise ValueError(f"{name} is {picture.width}x{picture.height} pixels; both sides must be at least 1")
    file = lossless_file(picture)
    if len(file) > _MAX_FILE_BYTES and 3 * picture.width * picture.height <= MAX_BYTES:
        # The server takes so many pixels, but by default no such file.
        return _raw(np.asarray(to_rgb(picture)))
    check_length(len(file), name)
    return image_pb2.Image(encoded=file)


def _from_pixels(pixels: NDArray[np.uint8], name: str) -> image_pb2.Image:
    if pixels.nbytes <= _MAX_PLAIN_BYTES:
        return _raw(pixels)
    return _from_picture(Image.fromarray(np.ascontiguousarray(pixels)), name)


def _raw(pixels: NDArray[np.uint8]) -> image_pb2.Image:
    height, width = pixels.shape[:2]
    return image_pb2.Image(raw=image_pb2.RawImage(rgb=pixels.tobytes(), width=width, height=height))


def _rgb(image: NDArray[np.uint8] | Pixels, name: str) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] of grey, of colours in either order, or of these with alpha."""
    given = image if isinstance(image, Pixels) else Pixels(image)
    pixels = np.asarray(given.array)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or not pixels.size:
        raise ValueError(
            f"{name}: pixels are uint8 [H, W] or [H, W, 3], not {pixels.dtype} {list(given.array.shape)}"
            + _advice(pixels)
        )
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    return pixels[:, :, :3] if given.color == "rgb" else pixels[:, :, 2::-1]


def _advice(pixels: NDArray[np.generic]) -> str:
    """How to make pixels of an array that has none, where that can be told."""
    if pixels.ndim == 4:
        return ": a batch? Give its images one by one"
    if pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4) and pixels.shape[0] in (1, 3, 4):
        return ": channels first? Use array.transpose(1, 2, 0), with uint8 values of 0 to 255"
    return _ADVICE.get(pixels.dtype.str[1:], "")


_OF_FLOATS = ": where values are 0 to 1, use (array * 255).round().astype(np.uint8)"
# By NumPy's short name of the type.
_ADVICE = {
    "b1": ": use array.astype(np.uint8) * 255",
    "u2": ": use (array >> 8).astype(np.uint8)",
    "f2": _OF_FLOATS,
    "f4": _OF_FLOATS,
    "f8": _OF_FLOATS,
}

"""Images as callers have them, to messages."""

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
"""The caller's name for an image that the server keeps, from `Client.encode_image`."""


@dataclass(frozen=True, slots=True)
class ImageHandle:
    """An image that the server has encoded and keeps: give it to later calls instead of the image.

    It is good for calls with the same API key. info: what came with it.
    """

    image_id: ImageId
    width: int
    height: int
    info: AnswerInfo = field(default=AnswerInfo(), compare=False, repr=False)


@dataclass(frozen=True, eq=False, slots=True)
class Pixels:
    """Pixels [H, W(, 1, 3 or 4)] of type uint8 whose order of colours is named.

    OpenCV (`cv2.imread`, frames of a `VideoCapture`, results of ultralytics) has blue first:
    `Pixels(frame, color="bgr")`. An array without this class is taken as RGB.
    """

    array: NDArray[np.uint8]
    color: Literal["rgb", "bgr"] = "rgb"

    def __post_init__(self) -> None:
        if self.color not in ("rgb", "bgr"):
            raise ValueError(f'color is "rgb" or "bgr", not {self.color!r}')


ImageLike = FileLike | NDArray[np.uint8] | Pixels | Image.Image | ImageHandle
"""An image in any of the forms that callers have:

- a path, or an address: https:// for a file that the server fetches, if it allows that; file:// and data: are
  read here;
- the bytes of an image file, or a file object that was opened with "rb";
- pixels, uint8 [H, W] grey or [H, W, 3] **RGB** (a fourth channel is dropped). OpenCV's arrays are BGR: they
  give wrong answers, without any error, unless they come as `Pixels(array, color="bgr")`;
- a Pillow image of any mode, which is turned as its EXIF data says;
- an `ImageHandle` of an image that the server keeps.
"""

URI_START = "https://"

MAX_FILE_BYTES = 32 * MEBIBYTE
"""What the server takes of an image file by default."""

# Larger arrays are sent as lossless files: that saves about half of the bytes, but takes a second or more.
_MAX_RAW_BYTES = 32 * MEBIBYTE

_FORMATS = {"rgb": image_pb2.PIXEL_FORMAT_RGB, "bgr": image_pb2.PIXEL_FORMAT_BGR}


def image_message(image: ImageLike, name: str = "image") -> image_pb2.Image:
    """Make the message of an image. Error messages call it `name`, such as "images[3]".

    Raises ValueError or TypeError for what is no image, OSError for a file that cannot be read.
    """
    match image:
        case ImageHandle():
            return image_pb2.Image(image_id=image.image_id)
        case str() if image[: len(URI_START)].lower() == URI_START:
            return image_pb2.Image(uri=image)
        case np.ndarray() | Pixels():
            return _from_pixels(image if isinstance(image, Pixels) else Pixels(image), name)
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
    if len(file) > MAX_FILE_BYTES and 3 * picture.width * picture.height <= MAX_BYTES:
        # By default the server takes as many pixels, but no file of this size.
        return _raw(np.asarray(to_rgb(picture)), image_pb2.PIXEL_FORMAT_RGB)
    check_length(len(file), name)
    return image_pb2.Image(encoded=file)


def _from_pixels(image: Pixels, name: str) -> image_pb2.Image:
    pixels = _checked(image.array, name)
    if pixels.nbytes <= _MAX_RAW_BYTES:
        return _raw(pixels, image_pb2.PIXEL_FORMAT_GRAY if pixels.ndim == 2 else _FORMATS[image.color])
    if pixels.ndim == 3 and image.color == "bgr":
        pixels = pixels[:, :, ::-1]
    return _from_picture(Image.fromarray(np.ascontiguousarray(pixels)), name)


def _raw(pixels: NDArray[np.uint8], format: image_pb2.PixelFormat.ValueType) -> image_pb2.Image:
    height, width = pixels.shape[:2]
    raw = image_pb2.RawImage(data=pixels.tobytes(), width=width, height=height, format=format)
    return image_pb2.Image(raw=raw)


def _checked(array: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
    """Return uint8 [H, W] of grey, [H, W, 3] of colours, without alpha."""
    pixels = np.asarray(array)
    channels = 1 if pixels.ndim == 2 else pixels.shape[2] if pixels.ndim == 3 else 0
    if pixels.dtype != np.uint8 or channels not in (1, 3, 4) or not pixels.size:
        raise ValueError(
            f"{name}: pixels are uint8 [H, W] or [H, W, 3], not {pixels.dtype} {list(pixels.shape)}"
            + _advice(pixels)
        )
    return pixels.reshape(pixels.shape[:2]) if channels == 1 else pixels[:, :, :3]


def _advice(pixels: NDArray[np.generic]) -> str:
    """Say how to make pixels of an array that has none, if its shape or type tells."""
    if pixels.ndim == 4:
        return ": a batch? Give its images one by one"
    if pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4) and pixels.shape[0] in (1, 3, 4):
        return ": channels first? Use array.transpose(1, 2, 0), with uint8 values of 0 to 255"
    return _ADVICE.get(pixels.dtype.str[1:], "")


_FOR_FLOATS = ": if values are 0 to 1, use (array * 255).round().astype(np.uint8)"
# The keys are NumPy's short names of types.
_ADVICE = {
    "b1": ": use array.astype(np.uint8) * 255",
    "u2": ": use (array >> 8).astype(np.uint8)",
    "f2": _FOR_FLOATS,
    "f4": _FOR_FLOATS,
    "f8": _FOR_FLOATS,
}

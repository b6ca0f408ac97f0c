"""The images of requests: where they come from, and what stays of them."""

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from gateway.models.raw_image import PixelOrder


class ImageSource:
    """Where an image comes from. `kind` is its name in the metrics."""

    __slots__ = ()
    kind: ClassVar[str]


@dataclass(frozen=True, slots=True)
class EncodedImage(ImageSource):
    """An image file."""

    kind = "encoded"
    data: bytes


@dataclass(frozen=True, slots=True)
class RawImage(ImageSource):
    """Pixels, row by row, in the order that `order` says."""

    kind = "raw"
    data: bytes
    width: int
    height: int
    order: PixelOrder = PixelOrder.RGB


@dataclass(frozen=True, slots=True)
class CachedImage(ImageSource):
    """An image that an earlier call of the same caller brought."""

    kind = "image_id"
    image_id: str


@dataclass(frozen=True, slots=True)
class UriImage(ImageSource):
    """An image file that the server fetches."""

    kind = "uri"
    uri: str


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What stays of an image that was read: its names, and its size in pixels.

    image_id: the caller's name for it. content_hash: the server's, by which callers share what is kept.
    """

    image_id: str
    content_hash: str
    width: int
    height: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """RGB uint8 [H, W, 3] in the orientation in which it is meant to be seen, and its names."""

    image_id: str
    content_hash: str
    pixels: NDArray[np.uint8]

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    @property
    def info(self) -> ImageInfo:
        return ImageInfo(self.image_id, self.content_hash, self.width, self.height)


def content_hash_of(source: EncodedImage | RawImage) -> str:
    """Return the name by which the server knows an image."""
    digest = hashlib.sha256(source.data)
    if isinstance(source, RawImage):
        # The same bytes are another image at another width, in another order, and as a file.
        digest.update(f"{source.order.value} {source.width}x{source.height}".encode())
    return digest.hexdigest()

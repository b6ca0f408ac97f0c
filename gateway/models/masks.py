"""Binary masks [H,W] (bool, or uint8 of 0 and 1) in the formats that callers ask for. They may be empty."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

# A mask is all runs: these options take a fifth of the time of the defaults, and half the size.
_PNG_OPTIONS = (
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE),
)

Mask = NDArray[np.bool_] | NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Rle:
    """COCO's compressed run-length encoding: runs go down the columns; size is (height, width)."""

    size: tuple[int, int]
    counts: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Polygon:
    """One connected region: its outline and the outlines of its holes, each int32 [n,2] of (x, y).

    Vertices are centres of the mask's own pixels, 0..width-1 and 0..height-1: the outline runs through the
    outermost pixels and a hole's through the pixels around the hole. All outlines drawn and filled together
    by the even-odd rule, as one call of `cv2.fillPoly` does, give the mask back exactly. A region one pixel
    wide has an outline of no area (a single vertex for a single pixel).
    """

    exterior: NDArray[np.int32]
    holes: tuple[NDArray[np.int32], ...]


@dataclass(frozen=True, slots=True)
class Polygons:
    """The connected regions of a mask."""

    polygons: tuple[Polygon, ...]


@dataclass(frozen=True, slots=True)
class Png:
    """A PNG file with one 8-bit channel: 255 inside, 0 outside."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Bitmap:
    """One bit a pixel, as `encode_bitmap` packs them; size is (height, width)."""

    size: tuple[int, int]
    data: bytes


@dataclass(frozen=True, slots=True, eq=False)
class PlacedMask:
    """A mask of `size` (height, width), all of whose pixels lie in a part of it.

    pixels: the part, bool [h,w], which may be empty. origin: (x, y) of its first pixel.
    """

    pixels: NDArray[np.bool_]
    origin: tuple[int, int]
    size: tuple[int, int]

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> "PlacedMask":
        """Take a mask as a part that is the whole."""
        return cls(mask, (0, 0), (mask.shape[0], mask.shape[1]))

    @classmethod
    def empty(cls, size: tuple[int, int]) -> "PlacedMask":
        """Return a mask without pixels."""
        return cls(np.zeros((0, 0), np.bool_), (0, 0), size)

    @property
    def is_whole(self) -> bool:
        return self.pixels.shape == self.size

    def whole(self) -> NDArray[np.bool_]:
        """Return the mask bool [H,W]."""
        if self.is_whole:
            return self.pixels
        whole = np.zeros(self.size, np.bool_)
        (x, y), (height, width) = self.origin, self.pixels.shape
        whole[y : y + height, x : x + width] = self.pixels
        return whole


EncodedMask = Rle | Polygons | Png | Bitmap


class MaskFormat(Enum):
    """How a mask is written."""

    RLE = "rle"
    POLYGONS = "polygons"
    PNG = "png"
    BITMAP = "bitmap"


def encode(mask: PlacedMask, mask_format: MaskFormat) -> EncodedMask:
    """Write a mask in a format."""
    return _ENCODERS[mask_format](mask)


def encode_part_rle(mask: PlacedMask) -> Rle:
    """Encode as `encode_rle` does the whole, without making it."""
    if mask.is_whole:
        return encode_rle(mask.pixels)
    (x, y), (rows, columns), (height, width) = mask.origin, mask.pixels.shape, mask.size
    # Column by column, with a zero below each, so that what reaches the last row changes there.
    padded = np.zeros(columns * (rows + 1) + 1, np.uint8)
    if mask.pixels.size:
        cv2.transpose(_bytes(mask.pixels), padded[1:].reshape(columns, rows + 1)[:, :-1])
    column, row = np.divmod(np.flatnonzero(padded[1:] != padded[:-1]), rows + 1)
    ends = np.append((x + column) * height + y + row, height * width)
    # Where a run goes on from the foot of one column to the head of the next, it neither ends nor begins.
    meeting = np.flatnonzero(ends[1:-1] == ends[:-2])
    ends = np.delete(ends, np.concatenate([meeting, meeting + 1]))
    counts = np.diff(ends, prepend=0)
    if len(counts) > 1 and not counts[-1]:  # the mask ends with the image
        counts = counts[:-1]
    rle = coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return Rle((height, width), rle["counts"])


def encode_rle(mask: Mask) -> Rle:
    """Encode as pycocotools does; `pycocotools.mask.decode` gives the mask back."""
    # Transposing in OpenCV makes the column-major copy several times faster than NumPy.
    columns = cv2.transpose(_bytes(mask)).T
    rle = coco.encode(columns)
    height, width = mask.shape
    return Rle((height, width), rle["counts"])


def decode_rle(rle: Rle) -> NDArray[np.bool_]:
    """Return the mask bool [H,W] that `encode_rle` wrote."""
    pixels: NDArray[np.uint8] = coco.decode({"size": list(rle.size), "counts": rle.counts})
    # Column by column in memory, as run lengths go: OpenCV turns it several times faster than NumPy.
    return cv2.transpose(pixels.T).view(np.bool_)


def encode_polygons(mask: Mask, origin: tuple[int, int] = (0, 0)) -> list[Polygon]:
    """Trace each 8-connected region; an island inside a hole is a polygon of its own. Empty mask: [].

    origin: (x, y) of the mask's first pixel.
    """
    if not mask.size:
        return []
    contours, hierarchy = cv2.findContours(
        _bytes(mask), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE, offset=origin
    )
    if hierarchy is None:
        return []
    outlines = [contour[:, 0].astype(np.int32) for contour in contours]
    parents = hierarchy[0, :, 3].tolist()  # -1 for an exterior
    holes: dict[int, list[NDArray[np.int32]]] = {}
    for outline, parent in zip(outlines, parents, strict=True):
        if parent >= 0:
            holes.setdefault(parent, []).append(outline)
    return [
        Polygon(outline, tuple(holes.get(index, ())))
        for index, (outline, parent) in enumerate(zip(outlines, parents, strict=True))
        if parent < 0
    ]


def encode_png(mask: Mask) -> bytes:
    """Encode as a one-channel 8-bit PNG: 255 inside, 0 outside."""
    _, png = cv2.imencode(".png", _bytes(mask) * np.uint8(255), _PNG_OPTIONS)
    return bytes(png)


def encode_bitmap(mask: Mask) -> bytes:
    """Pack one bit a pixel: row by row, no padding between rows, most significant bit first.

    `np.unpackbits(np.frombuffer(data, np.uint8), count=H * W).reshape(H, W)` gives the mask back.
    """
    return np.packbits(mask).tobytes()


def encode_part_bitmap(mask: PlacedMask) -> bytes:
    """Pack as `encode_bitmap` does the whole, of which only the part's rows are made."""
    (x, y), (rows, columns), (height, width) = mask.origin, mask.pixels.shape, mask.size
    # From the byte in which the part's first row begins to that in which its last row ends.
    start, stop = y * width // 8, -(-(y + rows) * width // 8)
    bits = np.zeros(8 * (stop - start), np.bool_)
    first = y * width - 8 * start
    bits[first : first + rows * width].reshape(rows, width)[:, x : x + columns] = mask.pixels
    packed = bytearray(-(-height * width // 8))
    packed[start:stop] = np.packbits(bits).data
    return bytes(packed)


def bounding_box(mask: Mask) -> tuple[int, int, int, int]:
    """Return (x_min, y_min, x_max, y_max) of the mask, max edges exclusive; (0, 0, 0, 0) if it is empty."""
    x, y, width, height = cv2.boundingRect(_bytes(mask))
    return x, y, x + width, y + height


def part_bounding_box(mask: PlacedMask) -> tuple[int, int, int, int]:
    """Return the `bounding_box` of the whole."""
    x_min, y_min, x_max, y_max = bounding_box(mask.pixels) if mask.pixels.size else (0, 0, 0, 0)
    x, y = mask.origin if x_max else (0, 0)
    return x + x_min, y + y_min, x + x_max, y + y_max


def area(mask: Mask) -> int:
    """Return the number of pixels in the mask."""
    return int(np.count_nonzero(mask))


def _bytes(mask: Mask) -> NDArray[np.uint8]:
    if mask.ndim != 2 or mask.dtype not in (np.bool_, np.uint8):
        raise ValueError(f"A mask is a bool or uint8 array [H,W], not {mask.dtype} {list(mask.shape)}.")
    return np.ascontiguousarray(mask).view(np.uint8)


_ENCODERS: Mapping[MaskFormat, Callable[[PlacedMask], EncodedMask]] = {
    MaskFormat.RLE: encode_part_rle,
    MaskFormat.POLYGONS: lambda mask: Polygons(tuple(encode_polygons(mask.pixels, mask.origin))),
    MaskFormat.PNG: lambda mask: Png(encode_png(mask.whole())),
    MaskFormat.BITMAP: lambda mask: Bitmap(mask.size, encode_part_bitmap(mask)),
}

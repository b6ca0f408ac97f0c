"""The bytes of an answer, counted while it is made."""

from gateway.admission import reserve
from gateway.errors import AnswerTooLargeError
from gateway.models.masks import Bitmap, EncodedMask, MaskFormat, Png, Polygons, Rle

# What the pipeline makes, and the message that the service makes of it.
_COPIES = 2
# A coordinate of an outline: three bytes in the message, four in the array.
_COORDINATE_BYTES = 4


class AnswerBytes:
    """Counts the bytes of one call's answer: those that are known before the work, and those that come up.

    They are reserved for the call, which may have to wait for them. The messages around them are small, and
    not counted.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0

    async def add(self, size: int) -> None:
        """Count more bytes; raise AnswerTooLargeError if they are too many."""
        self._size += size
        if self._size > self._limit:
            raise AnswerTooLargeError(
                f"would make an answer of {self._size} bytes or more; the limit is {self._limit}"
            )
        await reserve(_COPIES * size)


def known_bytes(mask_format: MaskFormat, size: tuple[int, int]) -> int:
    """Return the bytes of a mask of `size` (height, width), 0 if they depend on what is in it."""
    return -(-size[0] * size[1] // 8) if mask_format is MaskFormat.BITMAP else 0


def unknown_bytes(mask: EncodedMask) -> int:
    """Return the bytes of a mask whose format does not fix them, otherwise 0."""
    match mask:
        case Rle(_, counts):
            return len(counts)
        case Polygons(polygons):
            return _COORDINATE_BYTES * sum(
                ring.size for polygon in polygons for ring in (polygon.exterior, *polygon.holes)
            )
        case Png(data):
            return len(data)
        case Bitmap():
            return 0

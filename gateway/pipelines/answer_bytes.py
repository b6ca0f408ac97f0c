"""The bytes of an answer, counted while it is made."""

from gateway.errors import AnswerTooLargeError, ListTooLargeError
from gateway.models.masks import Bitmap, EncodedMask, MaskFormat, Png, Polygons, Rle
from gateway.reservations import reserver

# What the pipeline makes, and the message that the service makes of it.
_COPIES = 2
# A coordinate of an outline: three bytes in the message, four in the array.
_COORDINATE_BYTES = 4


class ListAnswer:
    """Counts what the results of a call's list make together: bytes, and pixels of masks.

    The bytes are reserved for the call that makes this, as those of `AnswerBytes` are.
    """

    def __init__(self, max_bytes: int, max_mask_pixels: int) -> None:
        self._max_bytes, self._max_mask_pixels = max_bytes, max_mask_pixels
        self._bytes = self._mask_pixels = 0
        self._reserve = reserver()

    async def add(self, size: int) -> None:
        """Count more bytes; raise ListTooLargeError if they are too many."""
        self._bytes += size
        self._check(self._bytes, self._max_bytes, "bytes")
        await self._reserve(_COPIES * size)

    def forget(self, size: int) -> None:
        """Count bytes no more that were added: their result is not part of the answer."""
        self._bytes -= size

    def add_mask_pixels(self, pixels: int) -> None:
        """Count more pixels of masks; raise ListTooLargeError if they are too many."""
        self._mask_pixels += pixels
        self._check(self._mask_pixels, self._max_mask_pixels, "pixels of masks")

    def _check(self, size: int, limit: int, what: str) -> None:
        if size > limit:
            raise ListTooLargeError(
                f"would together make an answer of {size} {what} or more; the limit is {limit}: send fewer"
            )


class AnswerBytes:
    """Counts the bytes of one call's answer: those that are known before the work, and those that come up.

    They are reserved for the call, which may have to wait for them. The messages around them are small, and
    not counted. With `whole` the answer is one result of a list, and what it takes also counts there.
    """

    def __init__(self, limit: int, whole: ListAnswer | None = None) -> None:
        self._limit = limit
        self._size = 0
        self._whole = whole
        self._reserve = reserver()

    async def add(self, size: int) -> None:
        """Count more bytes; raise AnswerTooLargeError if they are too many."""
        if self._size + size > self._limit:
            if self._whole is not None:
                self._whole.forget(self._size)
            raise AnswerTooLargeError(
                f"would make an answer of {self._size + size} bytes or more; the limit is {self._limit}"
            )
        self._size += size
        if self._whole is None:
            await self._reserve(_COPIES * size)
        else:
            await self._whole.add(size)


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

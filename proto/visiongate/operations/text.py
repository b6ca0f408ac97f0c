"""The text of pages."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from visiongate.answer import Answer
from visiongate.operations import arguments, splitting
from visiongate.operations.answers import item_images, read_errors, read_info
from visiongate.operations.image import ImageLike
from visiongate.operations.operation import Operation
from visiongate.v1 import text_service_pb2

_READING_ORDERS = {
    "rows": text_service_pb2.READING_ORDER_ROWS,
    "columns": text_service_pb2.READING_ORDER_COLUMNS,
}


@dataclass(frozen=True, eq=False, slots=True)
class Word:
    """A word: `quadrilateral` float32 [4, 2], x, y in pixels of the image, clockwise from the top left.

    confidence: of the characters, detection_score: that there is text; both 0 to 1.
    """

    text: str
    confidence: float
    quadrilateral: NDArray[np.float32]
    detection_score: float

    @property
    def box(self) -> NDArray[np.float32]:
        """The box around the quadrilateral: float32 [4], x_min, y_min, x_max, y_max."""
        return np.concatenate([self.quadrilateral.min(0), self.quadrilateral.max(0)])

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON holds."""
        return {
            "text": self.text,
            "confidence": round(self.confidence, 4),
            "quadrilateral": [
                [round(value, 2) for value in corner] for corner in self.quadrilateral.tolist()
            ],
            "detection_score": round(self.detection_score, 4),
        }


@dataclass(frozen=True, eq=False, slots=True)
class Page:
    """An image's text: `blocks` of lines of words in reading order, and all of it as plain `text`.

    rotation_degrees: the clockwise turn after which the page was read: 0, 90, 180 or 270.
    """

    blocks: list[list[list[Word]]]
    text: str
    width: int
    height: int
    rotation_degrees: int = 0

    def words(self) -> Iterator[Word]:
        """Iterate over all words in reading order."""
        for block in self.blocks:
            for line in block:
                yield from line

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON holds."""
        return {
            "text": self.text,
            "width": self.width,
            "height": self.height,
            "rotation_degrees": self.rotation_degrees,
            "blocks": [
                {"lines": [{"words": [word.as_dict() for word in line]} for line in block]}
                for block in self.blocks
            ],
        }


def recognize_text(
    images: Iterable[ImageLike],
    *,
    rotated_words: bool = False,
    min_pixel_score: float | None = None,
    min_word_score: float | None = None,
    min_confidence: float | None = None,
    group_lines: bool = True,
    group_blocks: bool = False,
    reading_order: Literal["rows", "columns"] | None = None,
    detect_orientation: bool = False,
    model: str = "",
    strict: bool = True,
) -> Operation[Answer[Page]]:
    """Find and read the words of pages: one `Page` for each image.

    `rotated_words` finds words at any angle. `detect_orientation` reads pages that lie on their side or
    upside down, at four times the cost.

    `min_pixel_score` is the least probability of a pixel to be part of a word, docTR's bin_thresh.
    `min_word_score` is the least mean probability of a word's pixels, its box_thresh. `min_confidence` is the
    least confidence of what is read at once, a word or a line. All are 0 to 1, and by default the model's
    own.

    With `group_lines=False` all words of a page are one line. `group_blocks` groups lines into blocks.
    `reading_order` is "rows", from the top to the bottom of the page, or "columns", each to its end; by
    default it is the model's own. Both need lines.

    An image that cannot be read fails the call. With `strict=False` its page is empty (no blocks, width and
    height 0), and the answer's `errors` say why.

    A list that is too long for one request is sent in several; all images are held in memory.
    """
    keywords: dict[str, Any] = {
        "rotated_words": arguments.flag(rotated_words, "rotated_words"),
        "min_pixel_score": arguments.fraction(min_pixel_score, "min_pixel_score"),
        "min_word_score": arguments.fraction(min_word_score, "min_word_score"),
        "min_confidence": arguments.fraction(min_confidence, "min_confidence"),
        "group_lines": arguments.flag(group_lines, "group_lines"),
        "group_blocks": arguments.flag(group_blocks, "group_blocks"),
        "reading_order": arguments.choice(reading_order, "reading_order", _READING_ORDERS),
        "detect_orientation": arguments.flag(detect_orientation, "detect_orientation"),
        "model": arguments.text(model, "model"),
        "include_timings": True,
        "strict": arguments.flag(strict, "strict"),
    }
    request, more = splitting.requests(
        lambda part: text_service_pb2.RecognizeTextRequest(images=part, **keywords),
        arguments.images(images),
        lambda image: 1 / splitting.MAX_PAGES,
    )
    return Operation(
        "/visiongate.v1.TextService/RecognizeText",
        request,
        text_service_pb2.RecognizeTextResponse,
        _read,
        more,
        list_name="images",
    )


def _read(response: text_service_pb2.RecognizeTextResponse, request_id: str) -> Answer[Page]:
    # The page of an error is not set: it reads as an empty one.
    pages = [result.page for result in response.results]
    info = read_info(
        response,
        request_id,
        item_images(pages),
        errors=read_errors(response.results, "images", request_id),
    )
    return Answer(map(_page, pages), info)


def _page(message: text_service_pb2.Page) -> Page:
    return Page(
        [[[_word(word) for word in line.words] for line in block.lines] for block in message.blocks],
        message.text,
        message.image.width,
        message.image.height,
        message.rotation_degrees,
    )


def _word(message: text_service_pb2.Word) -> Word:
    corners = [(corner.x, corner.y) for corner in message.quadrilateral.corners]
    return Word(message.text, message.confidence, np.array(corners, np.float32), message.detection_score)

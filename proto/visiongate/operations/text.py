"""The text of pages."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visiongate.answer import Answer
from visiongate.operations import arguments, splitting
from visiongate.operations.answers import read_info
from visiongate.operations.image import ImageLike
from visiongate.operations.operation import Operation
from visiongate.v1 import text_service_pb2


@dataclass(frozen=True, eq=False, slots=True)
class Word:
    """A word: `quadrilateral` float32 [4, 2], x, y in pixels of the image, clockwise from the top left.

    confidence: of the characters, detection_score: that there is a word; both 0 to 1.
    """

    text: str
    confidence: float
    quadrilateral: NDArray[np.float32]
    detection_score: float

    @property
    def box(self) -> NDArray[np.float32]:
        """float32 [4]: x_min, y_min, x_max, y_max around the quadrilateral."""
        return np.concatenate([self.quadrilateral.min(0), self.quadrilateral.max(0)])

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
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
    """An image's text: `blocks` of lines of words in reading order, and all of it as plain `text`."""

    blocks: list[list[list[Word]]]
    text: str
    width: int
    height: int
    turned_degrees: int = 0
    """By how much the page had to be turned clockwise to be read."""

    def words(self) -> Iterator[Word]:
        """All words in reading order."""
        for block in self.blocks:
            for line in block:
                yield from line

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "text": self.text,
            "width": self.width,
            "height": self.height,
            "turned_degrees": self.turned_degrees,
            "blocks": [
                {"lines": [{"words": [word.as_dict() for word in line]} for line in block]}
                for block in self.blocks
            ],
        }


def recognize_text(
    images: Iterable[ImageLike],
    *,
    rotated: bool = False,
    bin_threshold: float | None = None,
    box_threshold: float | None = None,
    lines: bool = True,
    blocks: bool = False,
    find_orientation: bool = False,
    model: str = "",
) -> Operation[Answer[Page]]:
    """Find and read the words of pages: one `Page` for each image.

    `rotated` finds words at any angle, `find_orientation` reads pages that lie on their side or upside down,
    at four times the cost. Thresholds are 0 to 1; where not given, the model's own hold. Without
    `lines` all words of a page are one line; `blocks` groups lines into blocks.

    More images than one request takes go in several; all of them are held in memory.
    """
    keywords: dict[str, Any] = {
        "rotated": arguments.flag(rotated, "rotated"),
        "bin_threshold": arguments.fraction(bin_threshold, "bin_threshold"),
        "box_threshold": arguments.fraction(box_threshold, "box_threshold"),
        "skip_lines": not arguments.flag(lines, "lines"),
        "group_blocks": arguments.flag(blocks, "blocks"),
        "find_orientation": arguments.flag(find_orientation, "find_orientation"),
        "model": arguments.text(model, "model"),
        "include_timings": True,
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
        lambda response, request_id: Answer(
            map(_page, response.pages),
            read_info(response, request_id, [page.image for page in response.pages]),
        ),
        more,
    )


def _page(message: text_service_pb2.Page) -> Page:
    return Page(
        [[[_word(word) for word in line.words] for line in block.lines] for block in message.blocks],
        message.text,
        message.image.width,
        message.image.height,
        message.turned_degrees,
    )


def _word(message: text_service_pb2.Word) -> Word:
    corners = [(corner.x, corner.y) for corner in message.quadrilateral.corners]
    return Word(message.text, message.confidence, np.array(corners, np.float32), message.detection_score)

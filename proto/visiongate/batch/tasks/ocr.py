"""The text of each image."""

from typing import Any, Literal

import pyarrow as pa

from visiongate.batch.task import Task
from visiongate.batch.tasks.making import make
from visiongate.batch.tasks.types import BOX, POINT, box_value, point_value, struct
from visiongate.operations.text import Page, Word, recognize_text

_COLUMNS = pa.schema(
    [
        ("text", pa.string()),
        # The clockwise turn after which the page was read.
        ("rotation_degrees", pa.int32()),
        # In reading order. Blocks are counted on the page, lines in their block, both from 0.
        (
            "words",
            pa.list_(
                struct(
                    text=pa.string(),
                    confidence=pa.float32(),
                    detection_score=pa.float32(),
                    box=BOX,
                    # Clockwise from the word's own top left.
                    quadrilateral=pa.list_(POINT, 4),
                    block=pa.int32(),
                    line=pa.int32(),
                )
            ),
        ),
    ]
)


def ocr(
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
) -> Task:
    """Find and read the words of pages, as `recognize_text` does."""
    return make(
        "ocr",
        recognize_text,
        {
            "rotated_words": rotated_words,
            "min_pixel_score": min_pixel_score,
            "min_word_score": min_word_score,
            "min_confidence": min_confidence,
            "group_lines": group_lines,
            "group_blocks": group_blocks,
            "reading_order": reading_order,
            "detect_orientation": detect_orientation,
            "model": model,
        },
        models={"text": model},
        batch_size=8,
        columns=_COLUMNS,
        values=_values,
    )


def _values(page: Page) -> dict[str, Any]:
    return {
        "text": page.text,
        "rotation_degrees": page.rotation_degrees,
        "words": [
            _word(word, block_index, line_index)
            for block_index, block in enumerate(page.blocks)
            for line_index, line in enumerate(block)
            for word in line
        ],
    }


def _word(word: Word, block: int, line: int) -> dict[str, Any]:
    return {
        "text": word.text,
        "confidence": word.confidence,
        "detection_score": word.detection_score,
        "box": box_value(word.box),
        "quadrilateral": list(map(point_value, word.quadrilateral)),
        "block": block,
        "line": line,
    }

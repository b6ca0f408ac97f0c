"""docTR's layout: words to lines and blocks, in reading order.

Agrees with python-doctr's DocumentBuilder at its defaults. Reading by columns, and places that are whole
lines, are not docTR's. Coordinates are fractions of the page's sides, 0 to 1. A page's size is (height,
width) in pixels.
"""

from itertools import chain
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gateway.models.doctr_detection import order_points
from gateway.models.reading_order import xy_cut

Points = NDArray[np.float64]

# Words of one line are always closer than this fraction of the page's width.
MAX_WORD_GAP = 0.035
# Runs of words of one line are closer than this, as a multiple of their height. The detection network parts
# them where it sees a wide gap. They are grown afterwards, so that little of the gap remains.
MAX_RUN_GAP = 0.5
# Lines belong to one block if the distance of their features is at most this.
MAX_BLOCK_DISTANCE = 0.1
# Fewer gaps between words than this are too few to judge a page by.
MIN_GAPS = 5
# Below this angle, in degrees, a page counts as upright.
MIN_PAGE_ANGLE = 1.0
# docTR's scale for OpenCV's smallest enclosing rectangle.
RECTANGLE_SCALE = 1024


def arrange(
    words: Points,
    size: tuple[int, int],
    *,
    lines: bool = True,
    blocks: bool = False,
    by_columns: bool = False,
    places_are_lines: bool = False,
) -> list[list[list[int]]]:
    """Arrange words in reading order: blocks of lines of indices of words.

    words: [n, 4] xyxy, or [n, 4, 2] corners clockwise from the top-left one. Without `lines` all words form
    one line. Without `blocks` all lines form one block. With `by_columns` a column is read to its end before
    the next one, and blocks are those of `xy_cut`. If `places_are_lines`, words are runs of words, which the
    detection network parted where the gap is wide.
    """
    if not len(words):
        return []
    boxes = words if words.ndim == 2 else _straighten(words, size)
    order = _top_to_bottom(boxes)
    if not lines:
        return [[order]]
    text_lines = _lines(boxes, order, size, places_are_lines)
    if by_columns:
        extents = [np.concatenate([boxes[line, :2].min(0), boxes[line, 2:].max(0)]) for line in text_lines]
        regions = xy_cut(np.array(extents) * [size[1], size[0], size[1], size[0]])
        found = [[text_lines[index] for index in region] for region in regions]
        return found if blocks else [list(chain.from_iterable(found))]
    return _blocks(words, text_lines) if blocks and len(text_lines) > 1 else [text_lines]


def page_angle(corners: Points) -> float:
    """Return the median angle of words [n, 4, 2] in pixels: degrees counter-clockwise, -90 to 90."""
    left, right = corners[:, 0] + corners[:, 3], corners[:, 1] + corners[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        angles = np.arctan((left[:, 1] - right[:, 1]) / (right[:, 0] - left[:, 0])) * 180 / np.pi
    angles = angles[np.isfinite(angles)]
    return float(np.median(angles)) if angles.size else 0.0


def _straighten(words: Points, size: tuple[int, int]) -> Points:
    """Return boxes [n, 4] of the words after the page is rotated upright about its centre."""
    height, width = size
    scale = np.array([width, height], np.float64)
    angle = page_angle(words * scale)
    turned = words.copy()
    if MIN_PAGE_ANGLE <= abs(angle) <= 90 - MIN_PAGE_ANGLE:
        sine, cosine = np.sin(-angle * np.pi / 180), np.cos(-angle * np.pi / 180)
        centre = scale / 2
        turned = (centre + (words * scale - centre) @ np.array([[cosine, -sine], [sine, cosine]])) / scale
    if abs(angle) >= MIN_PAGE_ANGLE:
        # A word that is not rotated like the page, such as a short one, moves but does not rotate.
        edges = (words[:, 1] - words[:, 0]) * scale
        upright = np.abs(np.rad2deg(np.arctan2(-edges[:, 1], edges[:, 0]))) < abs(angle) / 2
        moved = turned.mean(1, keepdims=True) - words.mean(1, keepdims=True)
        turned[upright] = words[upright] + moved[upright]
    return np.concatenate([turned.min(1), turned.max(1)], axis=-1)


def _top_to_bottom(boxes: Points) -> list[int]:
    height = float(np.median(boxes[:, 3] - boxes[:, 1]))
    if height <= 0:
        height = 1.0
    order: list[int] = (boxes[:, 0] + 2 * boxes[:, 3] / height).argsort().tolist()
    return order


def _lines(boxes: Points, order: list[int], size: tuple[int, int], places_are_lines: bool) -> list[list[int]]:
    """Collect words at about the same height into rows, and split the rows at gaps between columns."""
    height = float(np.median(boxes[:, 3] - boxes[:, 1]))
    centres = boxes[:, [1, 3]].mean(1)
    rows = [[order[0]]]
    total = centres[order[0]]
    for word in order[1:]:
        if abs(centres[word] - total / len(rows[-1])) < height / 2:
            rows[-1].append(word)
            total += centres[word]
        else:
            rows.append([word])
            total = centres[word]
    sorted_rows = [[row[index] for index in boxes[row, 0].argsort()] for row in rows]
    gaps = np.concatenate([boxes[row[1:], 0] - boxes[row[:-1], 2] for row in sorted_rows])
    relative_height = height * size[0] / size[1]
    max_gap = MAX_RUN_GAP * relative_height if places_are_lines else _max_gap(gaps, relative_height)
    lines = []
    for row in sorted_rows:
        line = [row[0]]
        for word in row[1:]:
            if boxes[word, 0] - boxes[line[-1], 2] < max_gap:
                line.append(word)
            else:
                lines.append(line)
                line = [word]
        lines.append(line)
    return lines


def _max_gap(gaps: NDArray[np.float64], height: float) -> float:
    """Return the gap at which a row is split.

    height: the median height of words, as a fraction of the page's width.
    """
    positive = gaps[gaps > 0]
    if len(positive) >= max(MIN_GAPS, 0.5 * len(gaps)):
        return min(MAX_WORD_GAP, max(3.0 * float(np.median(positive)), height))
    return min(MAX_WORD_GAP, height) if len(gaps) >= MIN_GAPS else MAX_WORD_GAP


def _blocks(words: Points, lines: list[list[int]]) -> list[list[list[int]]]:
    """Group lines that chains of close lines connect, which is single-linkage clustering."""
    features = _line_features(words, lines)
    block_of_line = np.full(len(lines), -1)
    count = 0
    for first in range(len(lines)):
        if block_of_line[first] >= 0:
            continue
        waiting = [first]
        block_of_line[first] = count
        while waiting:
            distances = np.linalg.norm(features - features[waiting.pop()], axis=1)
            close = np.flatnonzero((distances <= MAX_BLOCK_DISTANCE) & (block_of_line < 0))
            block_of_line[close] = count
            waiting.extend(close.tolist())
        count += 1
    return [[lines[index] for index in np.flatnonzero(block_of_line == block)] for block in range(count)]


def _line_features(words: Points, lines: list[list[int]]) -> Points:
    """Return features [n, 6] that tell lines apart: docTR's own choice of coordinates."""
    if words.ndim == 2:
        x_min, y_min = np.array([words[line, :2].min(0) for line in lines]).T
        x_max, y_max = np.array([words[line, 2:].max(0) for line in lines]).T
        means = (x_min + y_max, y_min + x_max, x_min + x_max, y_min + y_max)
        return np.stack([*(mean / 2 for mean in means), x_min, y_min], axis=-1)
    corners = np.array([_enclosing_rectangle(words[line].reshape(-1, 2)) for line in lines])
    x_1, y_1 = corners[:, 0].T
    x_3, y_3 = corners[:, 2].T
    return np.stack([x_1 + y_1, x_1 + x_3, x_1 + y_3, y_1 + y_3, y_1 + x_3, x_3 + y_3], axis=-1) / 2


def _enclosing_rectangle(points: Points) -> NDArray[np.floating[Any]]:
    rectangle = cv2.minAreaRect(points.astype(np.float32) * RECTANGLE_SCALE)
    return order_points(np.asarray(cv2.boxPoints(rectangle), np.float32) / RECTANGLE_SCALE)

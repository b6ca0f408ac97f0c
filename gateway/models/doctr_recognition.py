"""docTR's text recognition: crops of words, and their characters from the network's steps.

Agrees with python-doctr's `extract_crops`, `extract_rcrops`, `RecognitionPredictor` and post-processors.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from gateway.models.text import Pixels, Points, Span, Steps, first_steps, warp

# A crop with a larger ratio of width to height is read in overlapping pieces.
MAX_CROP_RATIO = 8
# The ratio of width to height of a piece, and the fraction of it that the next piece covers.
PIECE_RATIO = 6
PIECE_OVERLAP = 0.5


def cut_boxes(image: Pixels, boxes: Points) -> list[Pixels]:
    """Cut xyxy boxes [n, 4], 0 to 1, out of uint8 [H, W, 3]. A box at the very edge may give no pixels."""
    height, width = image.shape[:2]
    pixels = (boxes * [width, height, width, height]).round().astype(np.intp)
    return [image[y_min : y_max + 1, x_min : x_max + 1] for x_min, y_min, x_max, y_max in pixels]


def cut_quadrilaterals(image: Pixels, quadrilaterals: Points) -> list[Pixels]:
    """Cut quadrilaterals [n, 4, 2], 0 to 1, out of uint8 [H, W, 3].

    They are turned upright, by at most 90 degrees. A quadrilateral without area gives no pixels.
    """
    height, width = image.shape[:2]
    return [_cut(image, corners) for corners in quadrilaterals * [width, height]]


def _cut(image: Pixels, corners: Points) -> Pixels:
    is_left = corners[:, 0] < corners[:, 0].mean()
    left, right = (side[np.argsort(side[:, 1])] for side in (corners[is_left], corners[~is_left]))
    if not len(left):
        return image[:0, :0]
    top_left, bottom_left, top_right, bottom_right = left[0], left[-1], right[0], right[-1]
    width = int(max(np.linalg.norm(top_right - top_left), np.linalg.norm(bottom_right - bottom_left)))
    height = int(max(np.linalg.norm(bottom_left - top_left), np.linalg.norm(bottom_right - top_right)))
    if width < 1 or height < 1:
        return image[:0, :0]
    source = np.array([top_left, bottom_left, top_right, bottom_right])
    target = [[0, 0], [0, height - 1], [width - 1, 0], [width - 1, height - 1]]
    return warp(image, source, target, (width, height))


def split(crop: Pixels) -> tuple[list[Pixels], float]:
    """Split a very wide crop into the pieces in which it is read, from left to right.

    A crop that is not very wide is the only piece. The second value is the fraction of the last piece, 0 to
    1, that the piece before it covers.
    """
    height, width = crop.shape[:2]
    if width / height <= MAX_CROP_RATIO:
        return [crop], 0.0
    piece_width = height * PIECE_RATIO
    step = piece_width - math.floor(piece_width * PIECE_OVERLAP)
    starts = list(range(0, width - piece_width + 1, step))
    if starts[-1] + piece_width < width:
        starts.append(width - piece_width)
    last_overlap = (starts[-2] + piece_width - starts[-1]) / piece_width
    return [crop[:, start : start + piece_width] for start in starts], last_overlap


def merge(pieces: Sequence[Span], last_overlap: float) -> Span:
    """Merge what the pieces of a split crop say. The confidence is the pieces' mean."""
    text = pieces[0].text
    for index, piece in enumerate(pieces[1:], 2):
        text = merge_texts(text, piece.text, last_overlap if index == len(pieces) else PIECE_OVERLAP)
    return Span(text, sum(piece.confidence for piece in pieces) / len(pieces))


def merge_texts(left: str, right: str, overlap: float) -> str:
    """Join the texts of neighbouring pieces, which end and begin with the same characters.

    `overlap` is the fraction of `right` that `left` probably covers. The last character of `left` and the
    first of `right` are distrusted, because the cut may run through them.
    """
    if min(len(left), len(right)) <= 1:
        return left + right
    head, tail = left[:-1], right[1:]
    mismatches = {
        count: sum(in_head != in_tail for in_head, in_tail in zip(head[-count:], tail[:count], strict=True))
        for count in range(1, min(len(head), len(tail)) + 1)
    }
    expected = round(len(right) * overlap) - 2
    exact = [count for count, mismatch_count in mismatches.items() if mismatch_count == 0]
    if exact:
        return head + tail[min(exact, key=lambda count: abs(count - expected)) :]
    if expected < 0:
        return left + right
    if expected < 1:
        return head + tail
    return head + tail[min(mismatches, key=lambda count: mismatches[count] + abs(count - expected)) :]


def decode_ctc(steps: Steps, vocabulary: str) -> list[Span]:
    """Decode the best path of CTC. The class after the vocabulary's is the blank.

    Repeated characters count once. The confidence is that of the least certain step, blanks included.
    """
    kept = first_steps(steps.classes, len(vocabulary))
    return [
        Span("".join(vocabulary[index] for index in row[keep]), float(confidence))
        for row, keep, confidence in zip(steps.classes, kept, steps.probabilities.min(1), strict=True)
    ]


def decode_attention(steps: Steps, vocabulary: str) -> list[Span]:
    """Decode one character a step. The class after the vocabulary's is the end of the word.

    The confidence is the characters' mean, or 0 if there are none.
    """
    classes = steps.classes
    is_end = classes == len(vocabulary)
    lengths = np.where(is_end.any(1), is_end.argmax(1), classes.shape[1])
    return [
        Span(
            "".join(vocabulary[index] for index in row[:length]),
            min(float(confidences[:length].mean()), 1.0) if length else 0.0,
        )
        for row, confidences, length in zip(classes, steps.probabilities, lengths, strict=True)
    ]


Decoder = Callable[[Steps, str], list[Span]]
DECODERS: Mapping[str, Decoder] = {"ctc": decode_ctc, "attention": decode_attention}

"""docTR's text recognition: crops of words, and characters from the network's logits.

Agrees with python-doctr's `extract_crops`, `extract_rcrops`, `RecognitionPredictor` and post-processors.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Points = NDArray[np.float64]

# A crop with a larger ratio of width to height is read in overlapping pieces.
MAX_CROP_RATIO = 8
# The ratio of width to height of a piece, and the fraction of it that the next piece covers.
PIECE_RATIO = 6
PIECE_OVERLAP = 0.5
# Longest side, in pixels, of an image that OpenCV can warp.
MAX_WARP_SIDE = 32766


@dataclass(frozen=True, slots=True)
class Decoded:
    """The characters of a word or of a piece of one, and their confidence from 0 to 1."""

    text: str
    confidence: float


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
    low = np.zeros(2, np.intp)
    if max(image.shape) > MAX_WARP_SIDE:
        # Warp only the part that is needed. Not always, because this rounds a little differently.
        low = np.maximum(np.floor(corners.min(0)).astype(np.intp) - 2, 0)
        high = np.ceil(corners.max(0)).astype(np.intp) + 3
        image = np.ascontiguousarray(image[low[1] : high[1], low[0] : high[0]])
    source = np.array([top_left, bottom_left, top_right, bottom_right]) - low
    target = [[0, 0], [0, height - 1], [width - 1, 0], [width - 1, height - 1]]
    transform = cv2.getPerspectiveTransform(source.astype(np.float32), np.array(target, np.float32))
    return np.asarray(cv2.warpPerspective(image, transform, (width, height)), np.uint8)


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


def merge(pieces: Sequence[Decoded], last_overlap: float) -> Decoded:
    """Merge what the pieces of a split crop say. The confidence is the pieces' mean."""
    text = pieces[0].text
    for index, piece in enumerate(pieces[1:], 2):
        text = merge_texts(text, piece.text, last_overlap if index == len(pieces) else PIECE_OVERLAP)
    return Decoded(text, sum(piece.confidence for piece in pieces) / len(pieces))


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


def decode_ctc(logits: NDArray[np.float32], vocabulary: str) -> list[Decoded]:
    """Decode the best path of CTC from logits [n, L, V + 1], whose last class is the blank.

    Repeated characters count once. The confidence is that of the least certain step, blanks included.
    """
    best, probability = _best(logits)
    blank = len(vocabulary)
    starts = np.ones(best.shape, np.bool_)
    starts[:, 1:] = best[:, 1:] != best[:, :-1]
    kept = starts & (best != blank)
    return [
        Decoded("".join(vocabulary[index] for index in row[keep]), float(confidence))
        for row, keep, confidence in zip(best, kept, probability.min(1), strict=True)
    ]


def decode_attention(logits: NDArray[np.float32], vocabulary: str) -> list[Decoded]:
    """Decode one character a step from logits [n, L, V + 1], whose last class is the end of the word.

    The confidence is the characters' mean, or 0 if there are none.
    """
    best, probability = _best(logits)
    is_end = best == len(vocabulary)
    lengths = np.where(is_end.any(1), is_end.argmax(1), best.shape[1])
    return [
        Decoded(
            "".join(vocabulary[index] for index in row[:length]),
            min(float(confidences[:length].mean()), 1.0) if length else 0.0,
        )
        for row, confidences, length in zip(best, probability, lengths, strict=True)
    ]


Decoder = Callable[[NDArray[np.float32], str], list[Decoded]]
DECODERS: Mapping[str, Decoder] = {"ctc": decode_ctc, "attention": decode_attention}


def _best(logits: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the best class of every step and its softmax probability."""
    best = logits.argmax(-1)
    highest = logits.max(-1, keepdims=True)
    probability: NDArray[np.float32] = 1 / np.exp(logits - highest).sum(-1)
    return best, probability

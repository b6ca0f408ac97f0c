"""docTR: pages to words, from the parts in `doctr_detection` and `doctr_recognition`.

Agrees with python-doctr's `ocr_predictor` at its defaults. For rotated text, agrees with
`assume_straight_pages=False` without the orientation classifiers (`disable_page_orientation` and
`disable_crop_orientation`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gateway.models.doctr_detection import MapThresholds, find_boxes, find_quadrilaterals, remove_padding
from gateway.models.doctr_layout import arrange
from gateway.models.doctr_recognition import (
    DECODERS,
    Decoder,
    cut_boxes,
    cut_quadrilaterals,
    merge,
    split,
)
from gateway.models.parameters import ParameterReader
from gateway.models.text import Crops, Pixels, Places, Span, Steps


@dataclass(frozen=True, slots=True)
class DoctrSpec:
    """The constants of one variant: a `TextSpec` whose places are words.

    image_size: side of the detection network's square input, in pixels. crop_size: (height, width) of the
    recognition network's input, in pixels.
    """

    image_size: int
    thresholds: MapThresholds
    crop_size: tuple[int, int]
    vocabulary: str
    decoder: Decoder
    min_confidence: float = 0.0
    by_columns: bool = False

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str], folder: Path) -> Self:
        """Read the parameters of both networks; raise ValueError that names what is missing or wrong."""
        reader = ParameterReader(parameters)
        return cls(
            image_size=reader.whole_number("image_size"),
            thresholds=MapThresholds.from_parameters(reader),
            crop_size=reader.size("crop_size"),
            vocabulary=reader.text("vocabulary"),
            decoder=DECODERS[reader.one_of("decoder", DECODERS)],
        )

    @property
    def input_size(self) -> int:
        """Longest side, in pixels, that images are resized to."""
        return self.image_size

    def preprocess(self, image: Pixels) -> Pixels:
        """Fit uint8 [H, W, 3] into the middle of the detection network's [S, S, 3], black around it."""
        return fit(image, (self.image_size, self.image_size), centred=True)

    def find(
        self,
        probability: NDArray[np.float32],
        size: tuple[int, int],
        thresholds: MapThresholds,
        *,
        rotated: bool,
    ) -> Places:
        """Find words in the map [S, S] of a page: see `TextSpec`. They are upright unless `rotated`."""
        if rotated:
            points, scores = find_quadrilaterals(probability, thresholds)
        else:
            boxes, scores = find_boxes(probability, thresholds)
            points = boxes.reshape(-1, 2, 2)
        unpadded = remove_padding(points, size)
        points = unpadded if rotated else unpadded.reshape(-1, 4)
        return Places(points, scores, np.zeros(len(points), np.bool_))

    def arrange(
        self, places: Places, size: tuple[int, int], *, lines: bool, blocks: bool, by_columns: bool
    ) -> list[list[list[int]]]:
        """Return blocks of lines of indices of words: see `TextSpec`."""
        return arrange(places.points, size, lines=lines, blocks=blocks, by_columns=by_columns)

    def batches(self, places: Places, size: tuple[int, int], limit: int) -> list[NDArray[np.intp]]:
        """Return the words in their order. All crops have one size."""
        return [np.arange(start, min(start + limit, len(places))) for start in range(0, len(places), limit)]

    def crop_limit(self, crops: Crops, limit: int) -> int:
        """Return `limit`."""
        return limit

    def batch_bytes(self, limit: int) -> int:
        """Return the bytes of so many crops."""
        return 3 * limit * self.crop_size[0] * self.crop_size[1]

    def cut(self, image: Pixels, places: Places) -> Crops:
        """Cut words out of uint8 [H, W, 3]."""
        cut = cut_quadrilaterals if places.points.ndim == 3 else cut_boxes
        pixels: list[Pixels] = []
        counts, overlaps = [], []
        for crop in cut(image, places.points):
            pieces, last_overlap = split(crop) if crop.size else ([], 0.0)
            pixels += [fit(piece, self.crop_size, centred=False) for piece in pieces]
            counts.append(len(pieces))
            overlaps.append(last_overlap)
        return Crops(
            np.stack(pixels) if pixels else np.zeros((0, *self.crop_size, 3), np.uint8),
            tuple(counts),
            tuple(overlaps),
        )

    def read(self, crops: Crops, steps: Sequence[Steps], min_confidence: float) -> list[list[Span]]:
        """Return one word for each place that has pixels: see `TextSpec`. Its text may be empty."""
        decoded = iter([piece for batch in steps for piece in self.decoder(batch, self.vocabulary)])
        words: list[list[Span]] = []
        for count, overlap in zip(crops.counts, crops.extents, strict=True):
            pieces = [next(decoded) for _ in range(count)]
            word = [merge(pieces, overlap)] if pieces else []
            words.append([span for span in word if span.confidence >= min_confidence])
        return words


def fit(image: Pixels, size: tuple[int, int], *, centred: bool) -> Pixels:
    """Resize uint8 [H, W, 3] to fit into `size` (height, width), and pad it with black.

    The image goes to the middle, or to the top-left if not `centred`. Agrees with docTR's `Resize` with
    `preserve_aspect_ratio=True`, except for one grey level in a few of 100,000 values.
    """
    height, width = size
    ratio = image.shape[0] / image.shape[1]
    if ratio > height / width:
        inner = height, max(int(height / ratio), 1)
    elif ratio < height / width:
        inner = max(int(width * ratio), 1), width
    else:
        inner = size
    resized = _resize(image, inner)
    if inner == size:
        return resized
    top, left = ((math.ceil((size[axis] - inner[axis]) / 2) if centred else 0) for axis in (0, 1))
    canvas = np.zeros((*size, 3), np.uint8)
    canvas[top : top + inner[0], left : left + inner[1]] = resized
    return canvas


def _resize(image: Pixels, size: tuple[int, int]) -> Pixels:
    """Resize with a bilinear filter and antialiasing, as torch does.

    Pillow rounds 8-bit images twice, once in each direction, which changes every seventh value by one. It
    does not round floating-point images, which is why this function uses them.
    """
    if image.shape[:2] == size:
        return image
    resized = np.empty((*size, 3), np.uint8)
    for channel in range(3):
        grey = Image.fromarray(image[:, :, channel]).convert("F")
        resized[:, :, channel] = np.rint(
            np.asarray(grey.resize((size[1], size[0]), Image.Resampling.BILINEAR))
        )
    return resized
